"""Images from registries: who is asked and how, pulls on the host that leads, and what becomes of images."""
