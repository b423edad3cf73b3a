"""Real hosts, disks and sockets under faults, with a checker of what clients saw: `./run torture`."""
