"""Who may reach whom: policies as operators apply them, and what they say about one connection."""
