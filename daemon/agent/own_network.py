"""What a task without networks has instead: its host's network, or nothing but a loopback."""

from __future__ import annotations

import socket
from pathlib import Path

from daemon.agent.task_runner import TaskFailure
from proto import objects_pb2 as objects

LOOPBACK = "127.0.0.1"
SELF = "127.0.1.1"  # of a host name that no other address stands for (Debian Reference, 5.1.1)
RESOLV_CONF = Path("/etc/resolv.conf")
KEY = "network.host_network_allowed"


def address_within(task: objects.Task) -> str:
    """Where what listens in the task is reached from within its network namespace."""
    return task.address if task.spec.networks else LOOPBACK


def check_allowed(spec: objects.ContainerSpec, allowed: bool) -> None:
    """Raises TaskFailure where the task shares its host's network and must not."""
    if spec.host_network and not allowed:
        raise TaskFailure(f"this host does not let tasks share its network: set {KEY} = true in its fairwayd.toml")


def host_name(spec: objects.ContainerSpec, task_id: str) -> str:
    """The container's host name: that of the host where it shares the host's network, as in Docker."""
    return spec.hostname or (socket.gethostname() if spec.host_network else task_id[:12])


def resolv_conf(spec: objects.ContainerSpec, path: Path = RESOLV_CONF) -> str:
    """The host's own; nobody can be asked without a network. Raises OSError."""
    return path.read_text() if spec.host_network else ""
