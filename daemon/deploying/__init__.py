"""Operators' changes of apps, services and nodes, as plans."""
