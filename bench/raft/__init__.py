"""Consensus beside etcd: latency, throughput, failover, memory and start of three members on one machine."""
