"""Addresses, overlay, balancing, isolation and names, as the kernel and resolvers see them."""
