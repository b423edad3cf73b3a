"""Has a container share namespaces of a process that runs. Pure."""

from __future__ import annotations

from typing import Any

JOINED = ("network", "pid", "ipc")


def join(linux: dict[str, Any], process_id: int) -> None:
    """Of the part `linux` of an OCI specification that was made for namespaces of its own: takes the process's network,
    process ids and IPC. Settings of the kernel stay the process's."""
    others = [each for each in linux["namespaces"] if each["type"] not in JOINED]
    names = {"network": "net"}
    shared = [{"type": kind, "path": f"/proc/{process_id}/ns/{names.get(kind, kind)}"} for kind in JOINED]
    linux["namespaces"] = [*others, *shared]
    linux["sysctl"] = {}
