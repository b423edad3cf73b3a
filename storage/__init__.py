"""Volumes and the mounts of tasks."""
