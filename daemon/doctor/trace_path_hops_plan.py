"""The hops between two hosts: rules, routes, tunnel, underlay, overlay, the way back. Pure."""

from __future__ import annotations

from daemon.doctor.host_findings_plan import several
from daemon.doctor.trace_ends_plan import Source, Target
from daemon.doctor.trace_walk import REPAIRED, Walk, filters_in_words, milliseconds
from proto import objects_pb2 as objects
from proto.doctor_pb2 import PathObservation, PeerObservation

_BROKEN = ("missing chain", "missing set", "other rules in chain")


def kernel(walk: Walk, where: str, seen: PathObservation) -> None:
    """What of a host's kernel is not as it should be, beyond the hops that look at single parts."""
    broken = [each for each in seen.differences if each.startswith(_BROKEN)]
    if broken:
        walk.fail("rules", where, f"the kernel's packet rules are not as they should be: {several(broken)}", REPAIRED)
    if seen.conntrack_full:
        walk.fail(
            "connections",
            where,
            "the kernel's table of connections is full: new connections are dropped",
            "raise net.netfilter.nf_conntrack_max with sysctl, and look who has so many (`conntrack -L`)",
        )
    if seen.recent_drift:
        walk.note(
            "repairs",
            where,
            f"{len(seen.recent_drift)} differences were repaired within the last minute: {several(seen.recent_drift)}",
            "find who changes the kernel's objects (a firewall's reload, a network manager, a script)",
        )


def way_out(walk: Walk, where: str, target: Target, here: PathObservation) -> None:
    """To an address outside of the cluster."""
    if not here.forwarding:
        _no_forwarding(walk, where)
    for found in here.routes:
        if found.error:
            walk.fail("route", where, f"{found.address}: {found.error}", "give the host a route to it (`ip route`)")
        elif found.device == here.tunnel.device:
            walk.fail(
                "route", where, f"{found.address} would go by the overlay", "its address overlaps the cluster's pools"
            )
        else:
            walk.ok("route", where, f"{found.address} goes by {found.device}{_via(found.gateway)}")


def route(
    walk: Walk,
    where: str,
    target: Target,
    end: Source,
    node: objects.Node,
    task: objects.Task,
    here: PathObservation,
    there: PathObservation | str,
) -> None:
    """The host's own decision for packets to one task."""
    if end.task is not None and not here.forwarding:
        _no_forwarding(walk, where)
    address, gateway = target.over(task.address), target.over(node.network.tunnel_address)
    found = next((each for each in here.routes if each.address == address), None)
    if found is None:
        walk.skip("route", where, f"the route to {address} was not looked up")
        return
    local = node.meta.id == end.node.meta.id
    if local:
        wanted = there.task.interface if not isinstance(there, str) else ""
        right = not found.error and found.device == wanted
    else:
        wanted = here.tunnel.device
        right = not found.error and (found.device, found.gateway) == (wanted, gateway)
    goes = found.error or f"it goes by {found.device}{_via(found.gateway)}"
    if right:
        walk.ok("route", where, f"{address} ({task.meta.name}): {goes}")
        return
    should = f"it should go by {wanted}" if local else f"it should go by {wanted} via {gateway}"
    walk.fail(
        "route",
        where,
        f"{address} ({task.meta.name}): {goes}; {should}",
        f"look for a route or rule of another program: `ip rule`, `ip route get {address}`",
    )


def _no_forwarding(walk: Walk, where: str) -> None:
    walk.fail(
        "forwarding",
        where,
        "IPv4 forwarding is off (net.ipv4.ip_forward=0): packets of tasks go nowhere",
        "fairwayd turns it on again within seconds; find what turns it off",
    )


def tunnel(walk: Walk, where: str, node: objects.Node, here: PathObservation) -> None:
    """The VXLAN device and its entries for the other host."""
    device = here.tunnel.device
    if not here.tunnel.there or not here.tunnel.up:
        walk.fail(
            "tunnel", where, f"the VXLAN device {device} is {'down' if here.tunnel.there else 'missing'}", REPAIRED
        )
        return
    found = _peer_of(here, node.meta.id)
    if found is None:
        walk.skip("tunnel", where, f"{node.meta.name} is not known there yet")
        return
    problem = _entries(found, node)
    if problem:
        walk.fail("tunnel", where, problem, f"{REPAIRED}: `ip neigh show dev {device}`, `bridge fdb show dev {device}`")
    else:
        walk.ok("tunnel", where, f"{device} leads to {node.meta.name} at {found.forwarding}")


def _entries(found: PeerObservation, node: objects.Node) -> str:
    if found.error and not found.route:
        return found.error
    if not found.route_right:
        return f"the route to {node.meta.name}'s tunnel address {node.network.tunnel_address}: {found.route}"
    if not found.neighbour_right:
        there = f"it says {found.neighbour}" if found.neighbour else "it is missing"
        return f"the neighbour entry of {node.network.tunnel_address} ({node.meta.name}) is not right: {there}"
    if not found.forwarding_right:
        there = f"it says {found.forwarding}" if found.forwarding else "it is missing"
        return f"the FDB entry of {node.network.tunnel_mac} ({node.meta.name}) is not right: {there}"
    return ""


def underlay(walk: Walk, where: str, node: objects.Node, here: PathObservation) -> None:
    """Whether the other host's fairwayd answers a small UDP packet on the underlay."""
    found = _peer_of(here, node.meta.id)
    if found is None:
        walk.skip("underlay", where, f"{node.meta.name} was not probed")
    elif found.underlay.answered:
        walk.ok(
            "underlay",
            where,
            f"{node.meta.name} answers at {node.address} in {milliseconds(found.underlay.latency_seconds)}",
        )
    elif found.underlay_neighbour:
        walk.fail("underlay", where, found.underlay_neighbour, f"`ip neigh flush to {node.address}`, and who set it?")
    else:
        walk.fail(
            "underlay",
            where,
            f"{node.meta.name} does not answer at {node.address}{filters_in_words(here.other_filters)}",
            f"is it up? `ping {node.address}`; look at cables, addresses and firewalls between the two",
        )


def overlay(
    walk: Walk, where: str, node: objects.Node, here: PathObservation, there: PathObservation | str, tunnel_ports: str
) -> None:
    """Whether VXLAN packets get through (`tunnel_ports`: UDP, in words), small ones and as large ones as tasks send."""
    found = _peer_of(here, node.meta.id)
    if found is None:
        walk.skip("overlay", where, f"{node.meta.name} was not probed")
        return
    if not found.overlay.answered:
        if not found.underlay.answered:
            walk.skip("overlay", where, "nothing gets through on the underlay")
            return
        filters = [*here.other_filters]
        if not isinstance(there, str):
            filters += [f"{each} on {node.meta.name}" for each in there.other_filters]
        walk.fail(
            "overlay",
            where,
            f"{node.meta.name} answers on the underlay and not over VXLAN: the UDP packets of the tunnel are lost"
            f"{filters_in_words(filters)}",
            f"allow UDP port {tunnel_ports} between the hosts, in both directions",
        )
    elif not found.overlay_large.answered:
        walk.fail(
            "MTU",
            where,
            f"packets of {found.overlay_large.size_bytes} bytes do not arrive at {node.meta.name}, small ones do: "
            "the path carries less than the hosts' MTU says",
            "mend the MTU on the way; fairwayd lowers that of the overlay by itself once it has measured the path",
        )
    else:
        walk.ok(
            "overlay", where, f"{node.meta.name} answers over VXLAN in {milliseconds(found.overlay.latency_seconds)}"
        )


def peer(walk: Walk, node: objects.Node, there: PathObservation | str, back: objects.Node) -> None:
    """The other host, and its way back."""
    where = node.meta.name
    if isinstance(there, str):
        walk.fail("peer", where, f"the host {there}", "look at `fairway doctor`")
        return
    if not there.forwarding:
        _no_forwarding(walk, where)
    if not there.tunnel.there or not there.tunnel.up:
        word = "down" if there.tunnel.there else "missing"
        walk.fail("peer", where, f"the VXLAN device {there.tunnel.device} is {word}", REPAIRED)
        return
    found = _peer_of(there, back.meta.id)
    problem = _entries(found, back) if found is not None else f"it does not know {back.meta.name}"
    problem = problem or next(
        (f"the way back to {each.address}: {each.error}" for each in there.routes if each.error), ""
    )
    strays = [each for each in there.routes if not each.error and each.device != there.tunnel.device]
    if problem:
        walk.fail("peer", where, problem, REPAIRED)
    elif strays:
        walk.fail(
            "peer",
            where,
            f"the way back to {strays[0].address} goes by {strays[0].device}{_via(strays[0].gateway)}, not the overlay",
            f"look for a route or rule of another program: `ip rule`, `ip route get {strays[0].address}`",
        )
    else:
        walk.ok("peer", where, f"the way back to {back.meta.name} is there")
    kernel(walk, where, there)


def _peer_of(seen: PathObservation, node_id: str) -> PeerObservation | None:
    return next((each for each in seen.peers if each.node_id == node_id), None)


def _via(gateway: str) -> str:
    return f" via {gateway}" if gateway else ""
