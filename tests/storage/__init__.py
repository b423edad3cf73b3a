"""Tests of volumes and mounts."""
