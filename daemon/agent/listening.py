"""Whether a process listens on TCP ports, read from the kernel without sending anything.

Format of /proc/PID/net/tcp: Linux, Documentation/networking/proc_net_tcp.rst; state 0A is LISTEN.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"


def listening_ports(table: str) -> set[int]:
    """Ports in LISTEN of the text of /proc/PID/net/tcp or tcp6."""
    ports = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == LISTEN:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def missing_ports(pid: int, wanted: Iterable[int]) -> list[int]:
    """Those of `wanted` that nothing in the network namespace of `pid` listens on; all where it is gone."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        try:
            found |= listening_ports(Path(f"/proc/{pid}/net/{name}").read_text())
        except OSError:
            continue
    return sorted(set(wanted) - found)
