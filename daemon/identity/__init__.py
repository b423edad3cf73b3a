"""Who this host and this cluster are: keys, certificates, tokens, and what a host says of itself."""
