"""The parts of a host in a cluster that the doctor looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.agent.host_view import HostView
from daemon.agent.network_agent import NetworkAgent
from daemon.backup.schedule import ScheduledBackups
from daemon.identity.identity import Identity
from daemon.identity.renewal import Renewal
from net.network import Network
from raft.member import Member
from runtime.runtime import Runtime


@dataclass(frozen=True)
class Subject:
    """One host; `member` and `backups` are None where it has no part in consensus."""

    identity: Identity
    runtime: Runtime
    network: Network
    network_agent: NetworkAgent
    view: HostView
    renewal: Renewal
    backups: ScheduledBackups | None
    member: Member | None
    address: Callable[[], str]
    connected: Callable[[], bool]  # its session with a leader is there
