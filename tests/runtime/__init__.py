"""Tests of the container runtime, on a containerd of their own."""
