"""Consensus and the embedded store of the cluster's state."""
