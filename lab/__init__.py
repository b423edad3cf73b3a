"""A whole cluster on one machine, each host in namespaces of its own."""
