"""One host about itself: looks, judges (host_findings_plan.py) and answers within a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from daemon.config import Config
from daemon.doctor import host_facts
from daemon.doctor.host_findings_plan import CHECKS, MACHINE_CHECKS, RECENT_DRIFT_S, Disk, HostFacts, host_findings
from daemon.doctor.subject import Subject
from daemon.identity.certificates import validity_unix_ms
from daemon.identity.host_description import fairway_version
from net import features as network_features
from net.address_conflict import interface_of, who_else_has
from net.network import Network
from net.other_filters import other_filters
from net.path_observer import connection_count
from proto.doctor_pb2 import ExamineReply
from proto.objects_pb2 import NodeCondition


@dataclass(frozen=True)
class Blocking:
    """What needs a worker thread."""

    disks: list[Disk]
    missing_features: tuple[str, ...]
    conflict: str
    filters: list[str]
    address_missing: bool
    clock_unsynchronised: bool
    containerd_error: str


class Examiner:
    """`subject` is None on a host that belongs to no cluster: then only the machine is looked at."""

    def __init__(self, config: Config, subject: Subject | None, failing: Callable[[], list[NodeCondition]]) -> None:
        """`failing`: what this host's probes say now."""
        self._config = config
        self._subject = subject
        self._failing = failing

    async def examine(self) -> ExamineReply:
        """Never raises for what is wrong with the host: that is what it is for."""
        facts = await self._facts()
        return ExamineReply(
            findings=host_findings(facts),
            checks=CHECKS if self._subject is not None else MACHINE_CHECKS,
            clock_unix_ms=time.time_ns() // 1_000_000,
            fairway_version=fairway_version(),
            containerd_version=self._subject.runtime.version if self._subject is not None else "",
        )

    async def _facts(self) -> HostFacts:
        subject = self._subject
        address = subject.address() if subject is not None else ""
        looked = await trio.to_thread.run_sync(self._look, address)
        own, own_max, used, most = host_facts.descriptors()
        available, memory = host_facts.memory_bytes()
        connections, connections_max = connection_count()
        found: dict[str, Any] = {
            "containerd_error": looked.containerd_error,
            "missing_features": looked.missing_features,
            "disks": looked.disks,
            "memory_available_bytes": available,
            "memory_bytes": memory,
            "own_descriptors": own,
            "own_descriptors_max": own_max,
            "descriptors": used,
            "descriptors_max": most,
            "connections": connections,
            "connections_max": connections_max,
            "clock_unsynchronised": looked.clock_unsynchronised,
            "other_filters": looked.filters,
            "address": address,
            "address_conflict": looked.conflict,
            "address_missing": looked.address_missing,
            "member": subject is not None,
        }
        if subject is not None:
            found |= await self._facts_of_member(subject)
        return HostFacts(**found)

    def _look(self, address: str) -> Blocking:
        return Blocking(
            disks=host_facts.disks(self._config),
            missing_features=tuple(network_features.check()),
            conflict=who_else_has(address) if address else "",
            filters=other_filters(),
            address_missing=bool(address) and not interface_of(address)[0],
            clock_unsynchronised=host_facts.clock_unsynchronised(),
            containerd_error=host_facts.containerd_error(self._config) if self._subject is None else "",
        )

    async def _facts_of_member(self, subject: Subject) -> dict[str, Any]:
        network, now_s = subject.network, time.time()
        upstreams = network.upstream_servers()
        expires = validity_unix_ms(subject.identity.certificate)[1]
        found: dict[str, Any] = {
            "certificate_left_ms": expires - time.time_ns() // 1_000_000,
            "renewal_problem": subject.renewal.problem,
            "containerd_error": subject.runtime.error,
            "network_error": subject.network_agent.error,
            "forwarding": host_facts.forwarding(),
            "drift": [
                (now_s - at, words) for at, words in network.counters.recent_drift if now_s - at < RECENT_DRIFT_S
            ],
            "path_problems": [each.message for each in self._failing()],
            "upstreams": upstreams,
            "raft_error": subject.member.status().error if subject.member is not None else "",
            "backup_problem": subject.backups.problem if subject.backups is not None else "",
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_upstreams, upstreams, found)
            nursery.start_soon(self._ask_own_names, network, found)
        return found

    async def _ask_upstreams(self, upstreams: tuple[str, ...], found: dict[str, Any]) -> None:
        found["upstreams_silent"] = await host_facts.silent_upstreams(upstreams)

    async def _ask_own_names(self, network: Network, found: dict[str, Any]) -> None:
        found["names_answered"] = await network.names_answer()
