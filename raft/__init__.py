"""Consensus and the embedded store of the cluster's state."""

import socket as _socket

_inet_ntop = _socket.inet_ntop

import pysyncobj as _pysyncobj  # noqa: E402, F401 - loaded here first, for what follows

# PySyncObj 0.3.17 (win_inet_pton.py, last line) puts its Windows stand-in into the module socket on every system:
# every later inet_ntop of this process would fail.
_socket.inet_ntop = _inet_ntop
