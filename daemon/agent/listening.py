"""Whether a process listens on TCP ports, read from the kernel without sending anything.

Format of /proc/PID/net/tcp: Linux, Documentation/networking/proc_net_tcp.rst; state 0A is LISTEN.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"
SERVED = ("01", "03")  # ESTABLISHED, SYN_RECV


def listening_ports(table: str) -> set[int]:
    """Ports in LISTEN of the text of /proc/PID/net/tcp or tcp6."""
    ports = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == LISTEN:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def open_connections(table: str) -> int:
    """How many connections the text of such a table shows to ports that are listened on."""
    ports = listening_ports(table)
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(len(row) > 3 and row[3] in SERVED and int(row[1].rpartition(":")[2], 16) in ports for row in rows)


def serves_anybody(pid: int) -> bool:
    """Whether a client is connected to a port that is listened on in the network namespace of `pid`."""
    for name in ("tcp", "tcp6"):
        try:
            if open_connections(Path(f"/proc/{pid}/net/{name}").read_text()):
                return True
        except OSError:
            continue
    return False


def missing_ports(pid: int, wanted: Iterable[int]) -> list[int]:
    """Those of `wanted` that nothing in the network namespace of `pid` listens on; all where it is gone."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        try:
            found |= listening_ports(Path(f"/proc/{pid}/net/{name}").read_text())
        except OSError:
            continue
    return sorted(set(wanted) - found)
