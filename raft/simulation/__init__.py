"""Whole clusters in one process under faults that a seed decides: `./run sim --seeds A..B`.

The guard, PySyncObj behind it, driver, journal and store are the real ones; network, disks, clocks and clients are
simulated (network.py, disk.py, clock.py, clients.py, chains.py). plan.py turns a seed into a schedule of faults,
cluster.py carries it out, checks.py and linearizable.py judge, shrink.py finds the few faults that matter.
"""
