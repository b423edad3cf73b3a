"""Random changes of workloads beside failures of hosts, and whether what is there in the end is what was asked for."""
