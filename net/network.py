"""The network of one host: what the daemon calls. Everything is in the process's own network namespace."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from net import ipv6_support, path_attempts
from net.addresses import GATEWAY_ADDRESS
from net.check_loop import CheckLoop
from net.desired_changes import Change, DesiredIndex
from net.differences import counted
from net.dns_answers import Answers
from net.dns_resolv_conf import read_resolv_conf, search_domains, write_resolv_conf
from net.dns_server import NameServer
from net.dns_upstream import Upstream
from net.errors import NetworkError
from net.kernel import Kernel
from net.lingering import Lingering
from net.model import Counters, DesiredNetwork
from net.nftables import Nftables, table_name
from net.path_mtu import PathMtu
from net.path_observer import PathObserver, payload_bytes
from net.policy_chains import policy_of_counter
from net.policy_log import PolicyLog, counts_reply
from net.probe_socket import ProbeSocket
from net.ruleset import RulesetChange
from net.slow_checks import SlowChecks
from net.task_interfaces import Surroundings, TaskInterfaces
from net.task_networks import TaskNetworks
from proto.doctor_pb2 import ObservePathRequest, PathObservation
from proto.host_pb2 import ReadPolicyCountsReply

log = logging.getLogger(__name__)

FIRST_APPLY_SECONDS_MAX = 30.0
DRIFT_WORDS_MAX = 20
_PREFIX_LENGTH_MAX = 6
_STATE_FILE = "network.json"


class Network:
    """Make one per process. `interface_prefix` begins the names of our interfaces and ends our table's.

    `upstream_servers` None: those of the host's /etc/resolv.conf.
    """

    def __init__(
        self,
        state_folder: Path,
        run_folder: Path,
        interface_prefix: str = "fw",
        upstream_servers: Sequence[str] | None = None,
    ) -> None:
        if not interface_prefix.isalnum() or len(interface_prefix) > _PREFIX_LENGTH_MAX:
            raise NetworkError(
                f"interface prefix {interface_prefix!r}: take 1 to {_PREFIX_LENGTH_MAX} letters and digits, "
                "since the kernel allows 15 in a whole name"
            )
        self.counters = Counters()
        self._state_file = state_folder / _STATE_FILE
        self._run_folder = run_folder
        self._prefix = interface_prefix
        self._index = DesiredIndex()
        self._names = Answers()
        self._upstream = Upstream(self.counters, upstream_servers)
        self.probes = ProbeSocket(self._addresses_of_hosts)
        self.path_mtu = PathMtu(self._probe_for, self._sizes, self._apply_path_mtus)
        self._observer = PathObserver(interface_prefix, run_folder, self.counters, self.probe, self._differences)
        self._slow_checks = SlowChecks(lambda: self._index.desired, self._note, lambda: self._serve_anew.set())
        self._serve_anew = trio.Event()
        self._policy_log = PolicyLog()
        self._kernel: Kernel | None = None
        self._tasks = TaskNetworks(run_folder, interface_prefix)
        self._kernel_lock = trio.Lock()
        self._pending: Change | None = None  # applied to the index, not yet to the kernel
        self._lingering = Lingering()
        self._applied = trio.Event()
        self._check_loop = CheckLoop(interface_prefix, self.check, self.counters)
        self.wait_touched = self._check_loop.wait_touched
        self._hosts_known: DesiredNetwork | None = None
        self._host_addresses: set[str] = set()
        self._tunnel_address = ""
        self._without_ipv6 = ""  # why this host has no IPv6 although the cluster has, in words
        self._tunnel_changed = trio.Event()

    @property
    def drift_count(self) -> int:
        """Differences between kernel and desired state that were found and repaired."""
        return self.counters.drift_count

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves names and keeps the kernel as it was applied, until cancelled."""
        server = NameServer(self._names, self._upstream, self.counters)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._upstream.run)
            nursery.start_soon(self._serve_at_gateway, server)
            nursery.start_soon(self._slow_checks.run)
            nursery.start_soon(self._serve_at_tunnel, server)
            nursery.start_soon(self._check_loop.run)
            nursery.start_soon(self._end_lingering)
            nursery.start_soon(self.probes.run)
            nursery.start_soon(self.path_mtu.run)
            nursery.start_soon(self._listen_to_policies)
            task_status.started()

    async def apply(self, desired: DesiredNetwork) -> None:
        """Returns when `desired` is in effect in the kernel and for names; raises NetworkError.

        After an error call it again: nothing is forgotten, and the periodic check tries too.
        """
        self._without_ipv6 = ipv6_support.lacking(desired, ipv6_support.IPV6_MTU_BYTES_MIN)
        if self._without_ipv6:
            desired = ipv6_support.without_ipv6(desired)
        async with self._kernel_lock:
            change = self._lingering.hold(self._names.advance(self._index, desired), self._index)
            self._pending = self._pending.then(change) if self._pending is not None else change
            self.counters.apply_count += 1
            try:
                await self._apply_pending(desired)
            except NetworkError:
                self.counters.apply_failure_count += 1
                raise
            if desired.local.tunnel_address != self._tunnel_address:
                self._tunnel_address = desired.local.tunnel_address
                self._tunnel_changed.set()
                self._tunnel_changed = trio.Event()
            self._applied.set()

    async def create_task_network(self, task_id: str, address: str, make: Callable[[Path], None] | None = None) -> Path:
        """Makes a task's network namespace and interface; returns the namespace's file. Repeatable. `make`, in a
        thread, mounts a namespace on a file, in place of one that belongs to the host's user namespace.

        Waits for the first `apply`. What the task may reach follows from `DesiredNetwork.tasks`; its names
        come with `resolv_conf`. Raises NetworkError, and then nothing is left behind.
        """
        with trio.move_on_after(FIRST_APPLY_SECONDS_MAX) as waiting:
            await self._applied.wait()
        if waiting.cancelled_caught:
            raise NetworkError(
                f"make the network of task {task_id}: the settings of the cluster's network did not "
                f"arrive within {FIRST_APPLY_SECONDS_MAX:.0f} s"
            )
        around = self._surroundings()
        return await self._tasks.with_one(task_id, lambda tasks: tasks.create(task_id, address, around, make))

    async def admitted(self, task_id: str) -> None:
        """Returns when what was applied lets others reach a task: `DesiredNetwork.tasks` has it."""
        await self._tasks.admitted(task_id)

    def encryption(self) -> tuple[dict[int, bytes], str]:
        """(public keys by epoch of the devices that receive, why one that is wanted does not, in words)."""
        wireguard = self._kernel.wireguard if self._kernel is not None else None
        return (wireguard.public_keys(), wireguard.problem) if wireguard is not None else ({}, "")

    async def delete_task_network(self, task_id: str) -> None:
        """Takes a task's namespace file and interface away. Repeatable."""
        await self._tasks.with_one(task_id, lambda tasks: tasks.delete(task_id))

    async def list_task_networks(self) -> dict[str, str]:
        """Task id -> address of what is there, as the kernel says; "" where the interface is lost."""
        return await self._tasks.with_all(lambda tasks: tasks.addresses())

    def resolv_conf(self, app: str, search: Sequence[str] = (), options: Sequence[str] = ()) -> str:
        """The content of /etc/resolv.conf of a task of `app`: see `write_resolv_conf`."""
        domain = "" if self._index.desired is None else self._index.desired.config.dns_domain.strip(".")
        follows_host = self._upstream.follows_host and not search
        host_search = search_domains(read_resolv_conf()) if follows_host else ()
        return write_resolv_conf(app, domain, host_search, search, options)

    async def check(self) -> list[str]:
        """Compares the kernel with what was applied and repairs it; returns the differences, in words."""
        async with self._kernel_lock:
            desired = self._index.desired
            if desired is None:
                return []
            await self._apply_pending(desired)
            kernel = self._open_kernel()
            found = await trio.to_thread.run_sync(kernel.check, desired)
        found += await self._check_tasks(desired)
        self.counters.check_count += 1
        self._note(found)
        return found

    def _note(self, found: list[str]) -> None:
        """Counts and logs differences that were repaired."""
        if found:
            self.counters.drift_count += len(found)
            self.counters.last_drift = tuple(found[:DRIFT_WORDS_MAX])
            self.counters.drift_by_kind = counted(found, self.counters.drift_by_kind)
            self.counters.recent_drift.extend((time.time(), words) for words in found[:DRIFT_WORDS_MAX])
            more = len(found) - DRIFT_WORDS_MAX
            words = "; ".join(found[:DRIFT_WORDS_MAX]) + (f"; and {more} more" if more > 0 else "")
            log.warning("the kernel differed from the desired network and was repaired: %s", words)

    async def policy_counts(self) -> ReadPolicyCountsReply:
        """What policies denied on this host, or would have. Raises NetworkError."""
        async with self._kernel_lock:
            if self._kernel is None:
                return ReadPolicyCountsReply()
            counts = await trio.to_thread.run_sync(self._kernel.policy_counts)
        return counts_reply(counts, self._policy_log.denials)

    def denied_packets(self) -> dict[str, int]:
        """Policy id -> packets that it denied on this host, or would have; blocks for less than a millisecond."""
        with closing(Nftables(table_name(self._prefix))) as nftables:
            return {policy_of_counter(name): packets for name, (packets, _) in nftables.counts().items()}

    async def _listen_to_policies(self) -> None:
        try:
            await self._policy_log.run()
        except (NetworkError, OSError) as error:
            log.warning("%s; policies deny and count all the same", error)

    async def observe_path(self, request: ObservePathRequest) -> PathObservation:
        """What this host sees of a path, with live probes; takes a few seconds at most. Raises NetworkError."""
        desired = self._index.desired
        if desired is None:
            raise NetworkError("look at a path: the settings of the cluster's network did not arrive yet")
        return await self._observer.observe(desired, request)

    async def _differences(self) -> tuple[list[str], RulesetChange]:
        async with self._kernel_lock:
            desired = self._index.desired
            if desired is None:
                return [], RulesetChange()
            return await trio.to_thread.run_sync(self._open_kernel().differences, desired)

    async def probe(self, address: str, packet_bytes: int) -> float | None:
        """Round trip of a packet of this size that must not be cut on its way."""
        return await self.probes.probe(address, payload_bytes(address, packet_bytes), True)

    @property
    def desired(self) -> DesiredNetwork | None:
        """What was applied last."""
        return self._index.desired

    def serves(self, service_id: str) -> bool:
        """Whether a service has a ready endpoint."""
        return any(each.ready for each in self._index.endpoints_of(service_id))

    def mtu_bytes_to(self, node_id: str) -> int:
        """What a packet of the overlay to a host may have at most; 0 before the first `apply`."""
        if self._kernel is None:
            return 0
        return self._kernel.overlay.path_mtus.get(node_id) or self._kernel.overlay.mtu_bytes

    async def _probe_for(self, address: str, packet_bytes: int, seconds: float) -> float | None:
        return await self.probes.probe(address, payload_bytes(address, packet_bytes), True, seconds)

    def _sizes(self) -> tuple[DesiredNetwork, int, int] | None:
        desired, overlay = self._index.desired, self._kernel.overlay if self._kernel is not None else None
        if desired is None or overlay is None or not overlay.mtu_bytes:
            return None
        return desired, overlay.mtu_bytes, overlay.underlay_bytes

    async def _apply_path_mtus(self, path_mtus: Mapping[str, int]) -> None:
        async with self._kernel_lock:
            kernel, desired = self._open_kernel(), self._index.desired
            kernel.overlay.path_mtus = dict(path_mtus)
            if desired is None:
                return
            try:
                await trio.to_thread.run_sync(partial(kernel.overlay.apply, desired, compare=False))
            except NetworkError as error:
                log.warning("set the MTU of paths to hosts: %s; the next check tries again", error)

    async def names_answer(self) -> bool:
        """Whether this host's name server answers this host's own question now."""
        desired = self._index.desired
        if desired is None or not desired.config.dns_domain:
            return True
        return bool((await path_attempts.resolve(None, desired.config.dns_domain)).code)

    def upstream_servers(self) -> tuple[str, ...]:
        """The name servers that names from outside are asked of."""
        return self._upstream.servers()

    def _addresses_of_hosts(self) -> Collection[str]:
        """Whose probes are answered: by underlay and by overlay."""
        desired = self._index.desired
        if desired is not self._hosts_known:
            self._hosts_known = desired
            hosts = desired.hosts if desired is not None else ()
            self._host_addresses = {each for host in hosts for each in (host.address, host.tunnel_address)}
        return self._host_addresses

    async def remove(self) -> None:
        """Takes everything of ours away: for a host that leaves its cluster. Tasks must have ended."""
        for task_id in await self.list_task_networks():
            await self.delete_task_network(task_id)
        async with self._kernel_lock:
            self._kernel = self._open_kernel()
            await trio.to_thread.run_sync(self._kernel.remove)
            self._index, self._pending = DesiredIndex(), None
            self._kernel.close()
            self._kernel = None
        self._tasks.close()

    async def _apply_pending(self, desired: DesiredNetwork) -> None:
        if not self._pending:
            return
        kernel, change, index = self._open_kernel(), self._pending, self._index
        # Memberships are counted, so they go to the plan once, even where the kernel then refuses.
        self._pending = replace(change, memberships=[])
        words = await trio.to_thread.run_sync(kernel.apply, desired, index, change)
        self._pending = None
        self._tasks.admit(index.tasks)
        self.counters.connections_forgotten_count += len(change.withdrawn) + len(change.gone)
        for each in words:
            log.warning("%s", each)

    async def _end_lingering(self) -> None:
        while True:
            await self._lingering.wait()
            async with self._kernel_lock:
                change, desired = self._lingering.take(), self._index.desired
                if not change or desired is None:  # used again, or all was removed meanwhile
                    continue
                self._pending = self._pending.then(change) if self._pending is not None else change
                try:
                    await self._apply_pending(desired)
                except NetworkError as error:
                    log.warning("end connections to tasks that are gone: %s; the next check tries again", error)

    async def _check_tasks(self, desired: DesiredNetwork) -> list[str]:
        """Removes what belongs to no task and makes lost interfaces of tasks anew."""
        around = self._surroundings()

        def work(tasks: TaskInterfaces) -> list[str]:
            return tasks.clean() + tasks.mend(desired.tasks, around)

        # In one go: what is deleted meanwhile must not be made again.
        return await self._tasks.with_all(work)

    async def _serve_at_gateway(self, server: NameServer) -> None:
        while True:
            self._serve_anew = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, GATEWAY_ADDRESS)
                await self._serve_anew.wait()
                nursery.cancel_scope.cancel()

    async def _serve_at_tunnel(self, server: NameServer) -> None:
        while True:
            changed = self._tunnel_changed
            async with trio.open_nursery() as nursery:
                if self._tunnel_address:
                    nursery.start_soon(server.serve, self._tunnel_address)
                await changed.wait()
                nursery.cancel_scope.cancel()

    @property
    def lacking(self) -> list[str]:
        """What the cluster's network has and this host cannot have, in words."""
        of_overlay = self._kernel.overlay.ipv6_lacking if self._kernel is not None else ""
        return list(filter(None, [self._without_ipv6 or of_overlay]))

    def _surroundings(self) -> Surroundings:
        overlay = self._open_kernel().overlay
        return Surroundings(overlay.mtu_bytes, self._tunnel_address, overlay.ipv6_prefix)

    def _open_kernel(self) -> Kernel:
        if self._kernel is None:
            self._kernel = Kernel(self._prefix, self._state_file, self._run_folder)
        return self._kernel
