"""The metrics of one host whose values are kept elsewhere: read when somebody asks."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from daemon.config import Config
from daemon.doctor import host_facts
from daemon.doctor.metrics import Family, Sample
from daemon.doctor.subject import Subject
from daemon.identity.certificates import validity_unix_ms
from daemon.identity.host_description import fairway_version
from net.differences import KINDS
from net.errors import NetworkError
from net.path_observer import connection_count
from proto import objects_pb2 as objects
from raft.member import Member

RAFT_ROLES = ("leader", "follower", "candidate", "learner", "stopped")


class HostMetrics:
    """A collector for a `Registry`."""

    def __init__(self, config: Config, subject: Subject) -> None:
        self._config = config
        self._subject = subject
        self._started_s = time.monotonic()

    def __call__(self) -> Iterator[Family]:
        membership = self._subject.identity.membership
        about = {"version": fairway_version(), "node": membership.node_name, "cluster": membership.cluster_name}
        yield Family("fairway_info", "gauge", "Always 1; the labels say who this is.", [Sample(about, 1)])
        yield from self._process()
        yield from self._host()
        yield from self._network()
        yield from self._policies()
        yield from self._tasks()
        yield from self._logs()
        if self._subject.member is not None:
            yield from _raft(self._subject.member)

    def _process(self) -> Iterator[Family]:
        times = os.times()
        own, own_max, _, _ = host_facts.descriptors()
        yield _gauge("fairway_uptime_seconds", "Since the daemon took part.", time.monotonic() - self._started_s)
        yield _counter("fairway_process_cpu_seconds_total", "CPU time of fairwayd.", times.user + times.system)
        yield _gauge("fairway_process_memory_bytes", "Resident memory of fairwayd.", host_facts.process_memory_bytes())
        yield _gauge("fairway_process_descriptors", "Open file descriptors of fairwayd.", own)
        yield _gauge("fairway_process_descriptors_max", "How many it may open; 0: no limit.", own_max)

    def _host(self) -> Iterator[Family]:
        disks = host_facts.disks(self._config)
        yield Family(
            "fairway_disk_free_bytes",
            "gauge",
            "Free on the file systems that fairwayd uses.",
            [Sample({"path": disk.path}, disk.free_bytes) for disk in disks],
        )
        available, memory = host_facts.memory_bytes()
        yield _gauge("fairway_memory_available_bytes", "Memory that can be had without swapping.", available)
        yield _gauge("fairway_memory_bytes", "Memory of the host.", memory)
        entries, limit = connection_count()
        yield _gauge("fairway_conntrack_entries", "Entries of the kernel's connection table.", entries)
        yield _gauge("fairway_conntrack_entries_max", "How many fit.", limit)
        yield _gauge("fairway_containerd_up", "1 where containerd answers.", not self._subject.runtime.error)
        yield _gauge(
            "fairway_leader_connected", "1 while the session with a leader is there.", self._subject.connected()
        )
        left_s = validity_unix_ms(self._subject.identity.certificate)[1] / 1000 - time.time()
        yield _gauge("fairway_certificate_left_seconds", "Until this host's certificate expires.", left_s)

    def _network(self) -> Iterator[Family]:
        """Every counter of net/model.py, whatever is added there."""
        counters = self._subject.network.counters
        for field in dataclasses.fields(counters):
            value = getattr(counters, field.name)
            if isinstance(value, int) and field.name.endswith("_count") and field.name != "drift_count":
                name = field.name.removesuffix("_count")
                prefix = "" if name.startswith("dns_") else "network_"
                yield _counter(f"fairway_{prefix}{name}_total", f"See {field.name} in net/model.py.", value)
        by_kind = {**dict.fromkeys(KINDS, 0), **counters.drift_by_kind}
        yield Family(
            "fairway_network_drift_total",
            "counter",
            "Differences between kernel and desired network that were found and repaired.",
            [Sample({"kind": kind}, count) for kind, count in sorted(by_kind.items())],
        )

    def _policies(self) -> Iterator[Family]:
        view = self._subject.view
        names = {item.policy.meta.id: item.policy.meta.name for _, item in view.items_of("policy")}
        for _, item in view.items_of("frontend"):
            names[item.frontend.service_id] = f"{item.frontend.app}/{item.frontend.service}"
        try:
            denied = self._subject.network.denied_packets()
        except (NetworkError, OSError):
            denied = {}
        yield Family(
            "fairway_policy_denied_packets_total",
            "counter",
            "First packets of connections that a policy denied on this host, or would have where it only counts.",
            [Sample({"policy": names.get(each, each)}, count) for each, count in sorted(denied.items())],
        )

    def _tasks(self) -> Iterator[Family]:
        tasks: Iterable[objects.Task] = self._subject.view.tasks
        states = Counter(objects.TaskState.Name(task.status.state)[11:].lower() for task in tasks)
        yield Family(
            "fairway_tasks",
            "gauge",
            "Tasks of this host by state.",
            [Sample({"state": state}, count) for state, count in sorted(states.items())],
        )

    def _logs(self) -> Iterator[Family]:
        logs = self._subject.runtime.logs
        shipments = logs.shipments if logs is not None else ()
        yield _counter(
            "fairway_log_lines_left_out_total",
            "Lines of tasks that wrote more a second than their service's logging allows.",
            logs.left_out_lines if logs is not None else 0,
        )
        for name, help, value in (
            ("receivers", "Logs of tasks that are sent to a receiver.", len(shipments)),
            ("receivers_failing", "Those whose receiver takes nothing.", sum(bool(each.error) for each in shipments)),
        ):
            yield _gauge(f"fairway_log_{name}", help, value)


def _raft(member: Member) -> Iterator[Family]:
    status = member.status()
    yield Family(
        "fairway_raft_role",
        "gauge",
        "1 for this host's part in consensus.",
        [Sample({"role": role}, role == status.role) for role in RAFT_ROLES],
    )
    yield _gauge("fairway_raft_term", "The newest term that this host knows.", status.term)
    yield _gauge("fairway_raft_commit_index", "Log index up to which entries are committed.", status.commit_index)
    yield _gauge("fairway_raft_applied_revision", "Revision of the state here.", status.applied_revision)
    yield _gauge("fairway_raft_quorum", "1 while this host hears a majority.", status.quorum)
    yield _gauge("fairway_raft_voters", "Hosts with a vote.", len(status.voters))
    lags = [Sample({"peer": peer.node_id}, peer.lag_entries) for peer in status.peers if peer.lag_entries >= 0]
    yield Family("fairway_raft_peer_lag_entries", "gauge", "Entries that a peer has not confirmed yet.", lags)


def _gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, [Sample({}, value)])


def _counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, [Sample({}, value)])
