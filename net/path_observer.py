"""What this host sees of a path of which one end is its own: look-ups in the kernel and live probes, time-bounded."""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import trio

from net import link_messages as links
from net import path_attempts, task_end
from net import route_messages as routes
from net.addresses import tunnel_interface
from net.differences import FORWARDING_ENTRY, NEIGHBOUR, Difference
from net.errors import NetworkError
from net.model import Counters, DesiredNetwork, Host
from net.netlink import PROTOCOL_ROUTE, Netlink, Request, attribute_map, text
from net.other_filters import other_filters
from net.route_lookup import look_up
from net.route_messages import pack_address
from net.ruleset import RulesetChange
from proto.doctor_pb2 import (
    ObservePathRequest,
    PathObservation,
    PeerObservation,
    ProbeResult,
    RouteLookup,
    TaskEnd,
    TunnelObservation,
)

# Seconds until an address answered a packet of so many bytes, or None.
Probe = Callable[[str, int], Awaitable[float | None]]

PROBES = 3
SMALL_BYTES = 64
ASKED_MAX = 16  # addresses, hosts and connections of one request
RECENT_DRIFT_SECONDS = 60.0
_STATISTICS_64 = 23
_NEIGHBOUR_HEADER = struct.Struct("=BBHiHBB")
_PERMANENT, _FAILED = 0x80, 0x20
_IP_UDP_BYTES = {4: 28, 6: 48}
_CONNTRACK = Path("/proc/sys/net/netfilter")
_FULL_FRACTION = 0.98


class PathObserver:
    """Of one host; `differences` compares with the kernel without repairing: (words, the ruleset's change)."""

    def __init__(
        self,
        prefix: str,
        run_folder: Path,
        counters: Counters,
        probe: Probe,
        differences: Callable[[], Awaitable[tuple[list[str], RulesetChange]]],
    ) -> None:
        self._prefix = prefix
        self._run_folder = run_folder
        self._counters = counters
        self._probe = probe
        self._differences = differences

    async def observe(self, desired: DesiredNetwork, request: ObservePathRequest) -> PathObservation:
        """Everything that the request asks for; what cannot be seen is left out or said in words."""
        found = PathObservation()
        differences = await self._compare(request, found)
        namespace: Path | None = None
        if request.task_id:
            address = next((task.address for task in desired.tasks if task.task_id == request.task_id), "")
            found.task.CopyFrom(await self._task(request, address))
            if found.task.namespace_there:
                namespace = task_end.namespace_of(self._run_folder, request.task_id)
        source = found.task.address if request.task_id else ""
        await trio.to_thread.run_sync(self._look_up, desired, request, source, differences, found)
        async with trio.open_nursery() as nursery:
            if request.name and (namespace is not None or not request.task_id):
                nursery.start_soon(self._resolve, namespace, request.name, found)
            nursery.start_soon(self._probe_peers, desired, found)
            for target in request.connects[:ASKED_MAX]:
                if namespace is not None or not request.task_id:
                    nursery.start_soon(self._connect, namespace, request.protocol, target.address, target.port, found)
        asked = [target.address for target in request.connects]
        found.connects.sort(key=lambda each: asked.index(each.address))
        return found

    async def _task(self, request: ObservePathRequest, address: str) -> TaskEnd:
        if not address:
            return TaskEnd(known=False)
        return await trio.to_thread.run_sync(
            task_end.look_at, self._run_folder, self._prefix, request.task_id, address, request.protocol or "tcp"
        )

    async def _compare(self, request: ObservePathRequest, found: PathObservation) -> Collection[str]:
        try:
            words, change = await self._differences()
        except NetworkError as error:
            found.differences.append(str(error))
            return ()
        found.differences.extend([*words, *change.describe()])
        for vip in request.vips:
            found.vip_differences.extend(about(vip, change))
        since = time.time() - RECENT_DRIFT_SECONDS
        found.recent_drift.extend(
            f"{time.time() - at:.0f} s ago: {drift}" for at, drift in self._counters.recent_drift if at > since
        )
        return words

    def _look_up(
        self,
        desired: DesiredNetwork,
        request: ObservePathRequest,
        source: str,
        differences: Collection[str],
        found: PathObservation,
    ) -> None:
        found.forwarding = _number("/proc/sys/net/ipv4/ip_forward") == 1
        found.conntrack_full = conntrack_full()
        found.other_filters.extend(other_filters())
        device = found.task.interface if request.task_id else ""
        with Netlink(PROTOCOL_ROUTE) as netlink:
            found.tunnel.CopyFrom(_tunnel(netlink, tunnel_interface(self._prefix), desired.local.address))
            for address in request.addresses[:ASKED_MAX]:
                came_by = (source, device) if source and _family(source) == _family(address) else ("", "")
                decision = look_up(netlink, address, *came_by)
                found.routes.append(
                    RouteLookup(
                        address=address,
                        device=decision.device,
                        gateway=decision.gateway,
                        error=decision.error,
                        mtu_bytes=decision.mtu_bytes,
                    )
                )
            hosts = {host.node_id: host for host in desired.hosts}
            for node_id in request.node_ids[:ASKED_MAX]:
                if node_id in hosts and node_id != desired.local.node_id:
                    found.peers.append(_peer(netlink, tunnel_interface(self._prefix), hosts[node_id], differences))

    async def _resolve(self, namespace: Path | None, name: str, found: PathObservation) -> None:
        found.name.CopyFrom(await path_attempts.resolve(namespace, name))

    async def _connect(
        self, namespace: Path | None, protocol: str, address: str, port: int, found: PathObservation
    ) -> None:
        found.connects.append(await path_attempts.connect(namespace, protocol or "tcp", address, port))

    async def _probe_peers(self, desired: DesiredNetwork, found: PathObservation) -> None:
        hosts = {host.node_id: host for host in desired.hosts}
        large_bytes = found.tunnel.mtu_bytes
        async with trio.open_nursery() as nursery:
            for peer in found.peers:
                host = hosts[peer.node_id]
                for result, address, size_bytes in (
                    (peer.underlay, host.address, SMALL_BYTES),
                    (peer.overlay, host.tunnel_address, SMALL_BYTES),
                    (peer.overlay_large, host.tunnel_address, large_bytes or SMALL_BYTES),
                ):
                    # A route knows where the path carries less than the device.
                    result.size_bytes = min(size_bytes, result.size_bytes or size_bytes)
                    nursery.start_soon(probed, self._probe, address, result)


async def probed(probe: Probe, address: str, result: ProbeResult) -> None:
    """Sends PROBES probes of `result.size_bytes` and notes the answers."""

    async def once() -> None:
        seconds = await probe(address, result.size_bytes)
        if seconds is not None:
            result.answered += 1
            result.latency_seconds = min(seconds, result.latency_seconds or seconds)

    async with trio.open_nursery() as nursery:
        for _ in range(PROBES):
            result.sent += 1
            nursery.start_soon(once)


def payload_bytes(address: str, packet_bytes: int) -> int:
    """Of a UDP datagram in an IP packet of `packet_bytes`."""
    return packet_bytes - _IP_UDP_BYTES[6 if ":" in address else 4]


def about(vip: str, change: RulesetChange) -> list[str]:
    """What of a ruleset's change concerns a VIP, in words."""
    key = pack_address(vip)
    words = []
    for verb, sets in (("lacks", change.new_elements), ("has too much:", change.removed_elements)):
        for name, elements in sets.items():
            count = sum(1 for each in elements if key in each)
            if count:
                words.append(f"the kernel {verb} {count} entries of {vip} in {name}")
    words += [f"chain {name} has other rules" for name in change.rewritten_chains]
    return words


def connection_count() -> tuple[int, int]:
    """(entries, most that fit) of the kernel's table of connections; 0 where it does not tell."""
    return _number(_CONNTRACK / "nf_conntrack_count"), _number(_CONNTRACK / "nf_conntrack_max")


def conntrack_full() -> bool:
    """Whether that table has (almost) no room: new connections are dropped."""
    count, limit = connection_count()
    return limit > 0 and count >= _FULL_FRACTION * limit


def _tunnel(netlink: Netlink, name: str, underlay_address: str) -> TunnelObservation:
    found = TunnelObservation(device=name)
    body = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0) + text(3, name)
    answer = netlink.get(Request(links.GETLINK, 0, body, f"look up link {name}"))
    if answer is not None:
        link = attribute_map(answer.body, 16)
        found.there, found.up = True, bool(struct.unpack_from("=I", answer.body, 8)[0] & links.UP)
        found.mtu_bytes = struct.unpack("=I", link[4])[0]
        if _STATISTICS_64 in link:
            found.received_packets, found.sent_packets = struct.unpack_from("=QQ", link[_STATISTICS_64])
    return found


def _peer(netlink: Netlink, tunnel: str, host: Host, differences: Collection[str]) -> PeerObservation:
    found = PeerObservation(node_id=host.node_id)
    answer = netlink.get(links.get_link(tunnel))
    if answer is None:
        found.error = f"the device {tunnel} is missing"
        return found
    number = links.read_link(answer).number
    neighbours = (routes.read_neighbour(each) for each in netlink.dump(routes.list_neighbours(number)))
    macs = {each.address: each.mac for each in neighbours if each is not None and each.device == number}
    entries = (routes.read_forwarding(each) for each in netlink.dump(routes.list_forwardings(number)))
    places = {each.mac: each.address for each in entries if each is not None and each.device == number}
    # What is right depends on more than the host (encryption, families): the comparison has worked that out.
    wrong = {(each.kind, word) for each in differences if isinstance(each, Difference) for word in each.split()}
    found.neighbour = macs.get(host.tunnel_address, "")
    found.neighbour_right = bool(found.neighbour) and (NEIGHBOUR, host.tunnel_address) not in wrong
    found.forwarding = places.get(host.tunnel_mac, "")
    found.forwarding_right = bool(found.forwarding) and (FORWARDING_ENTRY, host.tunnel_mac) not in wrong
    decision = look_up(netlink, host.tunnel_address)
    found.route_right = decision.device == tunnel
    found.overlay_large.size_bytes = decision.mtu_bytes
    found.route = decision.error or f"by {decision.device}" + (f" via {decision.gateway}" if decision.gateway else "")
    found.underlay_neighbour = underlay_neighbour(netlink, host.address)
    return found


def underlay_neighbour(netlink: Netlink, address: str) -> str:
    """What the kernel believes to be the MAC of an address on the underlay, where that is suspicious; in words."""
    device = look_up(netlink, address).device
    answer = netlink.get(links.get_link(device)) if device else None
    if answer is None:
        return ""
    for each in netlink.dump(routes.list_neighbours(links.read_link(answer).number)):
        _, _, _, _, state, _, _ = _NEIGHBOUR_HEADER.unpack_from(each.body)
        found = attribute_map(each.body, _NEIGHBOUR_HEADER.size)
        if found.get(1) != pack_address(address):
            continue
        if state & _PERMANENT:
            return f"the entry of {address} in {device}'s neighbour table was set by hand, to {found[2].hex(':')}"
        if state & _FAILED:
            return f"nobody on {device} answers for {address} (its neighbour entry has failed)"
    return ""


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _number(path: str | Path) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0
