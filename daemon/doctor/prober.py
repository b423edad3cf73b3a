"""Probes other hosts, a few each period (net/probe_plan.py), and says what does not work: conditions and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import trio

from daemon.agent.reports import Reports
from daemon.doctor.metrics import Registry
from net.model import DesiredNetwork, Host
from net.network import Network
from net.probe_plan import PERIOD_SECONDS, PathState, ring, sample
from proto import objects_pb2 as objects

logger = logging.getLogger(__name__)

UNDERLAY, OVERLAY, LARGE = "underlay path", "overlay path", "overlay MTU"
ATTEMPTS_A_ROUND_MAX = 3
SMALL_PACKET_BYTES = 96  # the least is 72 where hosts reach each other by IPv6
REPEAT_CONDITIONS_SECONDS = 300.0  # the leader leaves out paths to hosts that are down: it hears of them again
SOURCE = "probes"
LOSSES = {UNDERLAY: "underlay loss", OVERLAY: "overlay loss"}
_PROBLEMS = {
    UNDERLAY: "probes of {name} at {address} are not answered",
    OVERLAY: "probes of {name} over the overlay ({address}) are not answered, those over the underlay are",
    LOSSES[UNDERLAY]: "many probes of {name} at {address} are lost on the way",
    LOSSES[OVERLAY]: "many probes of {name} over the overlay ({address}) are lost, those over the underlay are not",
    LARGE: "packets of {size} bytes over the overlay do not arrive at {name}, small ones do",
}


class Prober:
    """Of one host; `period_s` is for tests."""

    def __init__(self, network: Network, reports: Reports, metrics: Registry, period_s: float = PERIOD_SECONDS) -> None:
        self._network = network
        self._reports = reports
        self._period_s = period_s
        self._states: dict[tuple[str, str], PathState] = {}  # (node id, path) -> state
        self._sent = metrics.counter("fairway_probes_sent_total", "Probes of other hosts that were sent.", ("path",))
        self._answered = metrics.counter("fairway_probes_answered_total", "Probes that were answered.", ("path",))
        self._latency = metrics.histogram("fairway_probe_seconds", "Round trips of answered probes.", ("path",))
        self._failing = metrics.gauge(
            "fairway_path_failing", "1 for a path that fails, as this host's probes say.", ("path", "peer")
        )
        self._peer_latency = metrics.gauge(
            "fairway_path_seconds", "The newest round trip to a host by a path.", ("path", "peer")
        )

    async def run(self) -> None:
        """Probes until cancelled."""
        repeat_at = trio.current_time() + REPEAT_CONDITIONS_SECONDS
        while True:
            period = int(time.time() / self._period_s)
            desired = self._network.desired
            if desired is not None:
                await self._round(desired, period)
                if (
                    any(state.failing or state.lossy for state in self._states.values())
                    and trio.current_time() > repeat_at
                ):
                    repeat_at = trio.current_time() + REPEAT_CONDITIONS_SECONDS
                    self._reports.repeat_conditions()
            await trio.sleep(max(0.1, (period + 1) * self._period_s - time.time()))

    def failing(self) -> list[objects.NodeCondition]:
        """What fails now, in words."""
        desired = self._network.desired
        if desired is None:
            return []
        hosts = {host.node_id: host for host in desired.hosts}
        found = []
        for (node_id, path), state in sorted(self._states.items()):
            kind = path if state.failing else LOSSES.get(path, "") if state.lossy else ""
            if kind and node_id in hosts and not self._explained(node_id, path):
                words = self._words(hosts[node_id], kind)
                found.append(objects.NodeCondition(kind=kind, node_id=node_id, message=words))
        return found

    def _explained(self, node_id: str, path: str) -> bool:
        """Whether a path fails because a simpler one does."""
        order = (UNDERLAY, OVERLAY, LARGE)
        simpler = (self._states.get((node_id, each)) for each in order[: order.index(path)])
        return any(state is not None and (state.failing or state.lossy) for state in simpler)

    def _words(self, host: Host, kind: str) -> str:
        address = host.address if kind in (UNDERLAY, LOSSES[UNDERLAY]) else host.tunnel_address
        return _PROBLEMS[kind].format(name=host.name, address=address, size=self._network.mtu_bytes_to(host.node_id))

    async def _round(self, desired: DesiredNetwork, period: int) -> None:
        others = ring(desired.local, desired.hosts)
        self._forget_all_but(others)
        suspects = {node_id for (node_id, _), state in self._states.items() if state.suspicious}
        async with trio.open_nursery() as nursery:
            for host in sample(others, period, suspects):
                nursery.start_soon(self._probe, host)
        self._reports.conditions(SOURCE, self.failing())

    def _forget_all_but(self, hosts: Iterable[Host]) -> None:
        known = {host.node_id for host in hosts}
        for node_id, path in [key for key in self._states if key[0] not in known]:
            del self._states[node_id, path]

    async def _probe(self, host: Host) -> None:
        if not await self._path(host, UNDERLAY, host.address, SMALL_PACKET_BYTES):
            return
        large_bytes = self._network.mtu_bytes_to(host.node_id)
        if await self._path(host, OVERLAY, host.tunnel_address, SMALL_PACKET_BYTES) and large_bytes:
            await self._path(host, LARGE, host.tunnel_address, large_bytes)

    async def _path(self, host: Host, path: str, address: str, packet_bytes: int) -> bool:
        seconds: float | None = None
        outcomes: list[bool] = []
        for _ in range(ATTEMPTS_A_ROUND_MAX):
            self._sent.add(path)
            seconds = await self._network.probe(address, packet_bytes)
            outcomes.append(seconds is not None)
            if seconds is not None:
                self._answered.add(path)
                self._latency.observe(seconds, path)
                self._peer_latency.set(seconds, path, host.name)
                break
        before = self._states.get((host.node_id, path), PathState())
        after = self._states[host.node_id, path] = before.after(*outcomes)
        if after.failing != before.failing:
            logger.warning("%s to %s %s", path, host.name, "fails" if after.failing else "works again")
        if after.failing:
            self._failing.set(1, path, host.name)
        else:
            self._failing.forget(path, host.name)
        return seconds is not None
