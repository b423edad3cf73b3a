"""fairwayd: wires consensus, network, storage and runtime into one daemon."""
