"""What this host's kernel lacks for the network, in words; tried out in a namespace made for that."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from net import link_messages as links
from net import tunnel_messages as tunnels
from net.addresses import GATEWAY_MAC
from net.balance_plan import Draw
from net.chains_plan import FIXED_SETS, fixed_chains
from net.connections import Connections
from net.errors import NetworkError
from net.model import Host, NetworkConfig
from net.netlink import PROTOCOL_ROUTE, Netlink
from net.nft_family import families
from net.nftables import Nftables
from net.ruleset import Chain, ObservedRuleset, Ruleset, repair
from net.service_chains import balance_chain
from net.slots_plan import HASH, RANDOM, TURN

SCTP = "SCTP"
HOST_NETWORK = "the host's network for tasks"
_CLONE_NEWNET = 0x40000000


def check() -> list[str]:
    """The missing features, empty where all is there. Takes some milliseconds and changes nothing."""
    missing: list[str] = []
    thread = threading.Thread(target=_check_in_namespace, args=(missing,), name="fairway feature check")
    thread.start()
    thread.join()
    return missing


def lacking(host_network_allowed: bool) -> list[str]:
    """What only some tasks need, and this kernel does not have or its operator does not allow."""
    found = [] if host_network_allowed else [HOST_NETWORK]
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        found.append(SCTP)
    return found


def _check_in_namespace(missing: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        missing.append(f"network namespaces cannot be made ({reason}): run fairwayd as root")
        return
    probes: list[tuple[str, Callable[[], None]]] = [
        ("VXLAN devices", _vxlan),
        ("veth pairs", _veth),
        ("nftables with nat, fib, numgen, hash, reject and maps", _nftables),
        ("connection tracking over netlink, with filters (kernel 5.8)", _conntrack),
        ("IPv4 forwarding", _forwarding),
    ]
    for name, probe in probes:
        try:
            probe()
        except (NetworkError, OSError) as error:
            missing.append(f"{name}: {error}")


def _vxlan() -> None:
    with Netlink(PROTOCOL_ROUTE) as netlink:
        netlink.ask(tunnels.new_vxlan("fwprobe0", 1, 8472, "127.0.0.1", GATEWAY_MAC, 1450))


def _veth() -> None:
    descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink(PROTOCOL_ROUTE) as netlink:
            netlink.ask(links.new_veth("fwprobe1", GATEWAY_MAC, "02:66:77:00:00:02", 1450, descriptor))
    finally:
        os.close(descriptor)


def _nftables() -> None:
    config = NetworkConfig("198.18.0.0/16", "198.19.0.0/16")
    host = Host("probe", "probe", "192.0.2.1", "198.18.0.0/24", "198.18.0.1", GATEWAY_MAC, 1)
    draws = [Draw("vip", kind, 1) for kind in (RANDOM, TURN, HASH)] + [Draw("published", RANDOM, 1, "198.19.0.1")]
    chains: dict[str, Chain] = {draw.chain: balance_chain(draw, families(config, host)) for draw in draws}
    chains.update(fixed_chains(config, host, "fwprobe0", "fwt*", 1))
    nftables = Nftables("fairway_probe")
    try:
        nftables.apply(repair(ObservedRuleset({}, {}), Ruleset(chains, dict(FIXED_SETS))))
        nftables.remove()
    finally:
        nftables.close()


def _conntrack() -> None:
    connections = Connections()
    try:
        for refused in connections.forget(["198.18.0.2"], []):
            raise NetworkError(refused)
    finally:
        connections.close()


def _forwarding() -> None:
    # /proc/sys shows the namespace of the thread that opens it: the probe's own.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
