"""What runs on the host that leads, and what it derives from the store for all others."""
