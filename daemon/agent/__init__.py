"""One host's own part: its tasks, images, network and session with the leader."""
