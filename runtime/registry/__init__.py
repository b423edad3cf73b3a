"""A client of the OCI distribution API: images from registries and mirrors into this host's image store."""
