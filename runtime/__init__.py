"""containerd: images, containers, logs, processes and health."""
