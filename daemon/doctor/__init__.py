"""Says how the cluster is and why something does not work: probes, conditions, metrics, doctor, traces."""
