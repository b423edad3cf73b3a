"""Walks a packet's way over what the hosts saw of it, and names the first hop that fails. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.doctor import trace_hops_plan as hops
from daemon.doctor import trace_path_hops_plan as path
from daemon.doctor.isolation_plan import Verdict
from daemon.doctor.trace_ends_plan import HOST, NAME, NOBODY, OUTSIDE, SERVICE, Source, Target
from daemon.doctor.trace_walk import Walk
from proto import objects_pb2 as objects
from proto.doctor_pb2 import HOP_OUTCOME_FAILED, HOP_OUTCOME_NOTE, PathObservation, TracePathReply


@dataclass(frozen=True)
class Evidence:
    """What is known of a path. Of a host that did not answer: why, in words."""

    source: Source
    target: Target
    policy: Verdict
    here: PathObservation | str  # of the source's host
    there: Mapping[str, PathObservation | str]  # at the other end, by id of the task there, or of the host
    nodes: Mapping[str, objects.Node]
    tunnel_ports: str  # UDP, on the underlay, in words


def trace(evidence: Evidence) -> TracePathReply:
    """Every hop, whether the target is reached, and the verdict in one sentence."""
    walk = Walk()
    _walk(evidence, walk)
    reply = TracePathReply(hops=walk.hops)
    failed = next((hop for hop in walk.hops if hop.outcome == HOP_OUTCOME_FAILED), None)
    if failed is None:
        notes = [hop for hop in walk.hops if hop.outcome == HOP_OUTCOME_NOTE]
        reply.reached = True
        reply.verdict = f"{evidence.source.label} reaches {_label(evidence.target)}"
        if notes:
            reply.verdict += f"; but on {notes[0].where}: {notes[0].message}"
            reply.advice = notes[0].advice
    else:
        where = f" on {failed.where}" if failed.where else ""
        reply.verdict = f"{failed.hop}{where}: {failed.message}"
        reply.advice = failed.advice
    return reply


def _label(target: Target) -> str:
    return f"{target.label}:{target.port}" if target.port else target.label


def _walk(evidence: Evidence, walk: Walk) -> None:
    source, target, here = evidence.source, evidence.target, evidence.here
    name = source.node.meta.name
    if isinstance(here, str):
        walk.fail("source", name, f"the host {here}", "look at `fairway doctor` and `journalctl -u fairwayd` there")
        return
    hops.source(walk, name, source, here)
    if target.name:
        hops.name(walk, name, target, here, evidence.policy)
    if target.kind == NAME or not (target.addresses or target.backends or target.kind == SERVICE):
        return
    if target.kind == NOBODY:
        walk.fail(
            "address",
            name,
            f"{target.label} is in the cluster's pools, and no service, task or host has it",
            "ask by name: addresses of tasks change; `fairway ps` and `fairway show` list those of now",
        )
        return
    if target.kind == SERVICE:
        hops.balancer(walk, name, target, here)
    hops.policy(walk, name, evidence.policy)
    path.kernel(walk, name, here)
    if target.kind == OUTSIDE:
        path.way_out(walk, name, target, here)
    elif target.kind == HOST:
        _to_host(evidence, walk, here)
    for task in target.backends:
        _to_task(evidence, walk, here, task)
    hops.connection(walk, name, target, here, _filters_there(evidence))


def _to_host(evidence: Evidence, walk: Walk, here: PathObservation) -> None:
    node = evidence.target.node
    assert node is not None
    if node.meta.id == evidence.source.node.meta.id:
        return
    name = evidence.source.node.meta.name
    there = evidence.there.get(node.meta.id, "was not asked")
    if node.state == objects.NODE_STATE_DOWN:
        walk.fail(
            "host",
            node.meta.name,
            f"the host is down: {node.state_message or 'not heard of'}",
            "look at its power, its network and `systemctl status fairwayd`",
        )
    path.tunnel(walk, name, node, here)
    path.underlay(walk, name, node, here)
    path.overlay(walk, name, node, here, there, evidence.tunnel_ports)
    path.peer(walk, node, there, evidence.source.node)


def _to_task(evidence: Evidence, walk: Walk, here: PathObservation, task: objects.Task) -> None:
    source, node = evidence.source, evidence.nodes.get(task.node_id)
    if node is None:
        walk.fail("peer", "", f"the host of {task.meta.name} is not known", "`fairway ps` shows where it is")
        return
    name = source.node.meta.name
    there = evidence.there.get(task.meta.id, "was not asked")
    local = node.meta.id == source.node.meta.id
    path.route(walk, name, evidence.target, source, node, task, here, there)
    if not local:
        path.tunnel(walk, name, node, here)
        path.underlay(walk, name, node, here)
        path.overlay(walk, name, node, here, there, evidence.tunnel_ports)
    if isinstance(there, str):
        walk.fail(
            "peer", node.meta.name, f"the host {there}", "look at `fairway doctor`; its tasks may go on all the same"
        )
        return
    if not local:
        path.peer(walk, node, there, source.node)
    hops.interface(walk, node.meta.name, task, there)
    hops.process(walk, node.meta.name, evidence.target, task, there)


def _filters_there(evidence: Evidence) -> list[str]:
    found: dict[str, None] = {}
    ends = {task.meta.id: task.node_id for task in evidence.target.backends}
    for key, there in evidence.there.items():
        node = evidence.nodes.get(ends.get(key, key))
        if not isinstance(there, str) and node is not None and node.meta.id != evidence.source.node.meta.id:
            found |= dict.fromkeys(f"{each} on {node.meta.name}" for each in there.other_filters)
    return list(found)
