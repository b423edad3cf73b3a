"""The demonstration: a small shop on three hosts, one of which dies."""
