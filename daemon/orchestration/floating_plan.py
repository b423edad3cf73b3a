"""Floating addresses: outside addresses of services, each held by one healthy host. Pure.

The holder is a node by a lease in the store; its host puts the address on an interface and lets the kernel drop it
when it has not heard of the leader for as long as it takes to be declared down (daemon/agent/floating_agent.py), so
that no two hosts hold one for longer than an announcement takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.orchestration.draft import Draft
from daemon.orchestration.leases import FLOATING_PREFIX
from daemon.orchestration.task_states import serving
from proto import objects_pb2 as objects


def place_floating_addresses(draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
    """Gives each address that a service asks for to a host, and moves those whose host is not fit any more.

    The present holder keeps it while it is fit; else it goes to the host with most ready tasks of its services, and
    among equals to the one that holds fewest addresses. Without a fit host it stays where it is."""
    wanted = _wanted(draft)
    held = {
        lease.meta.name.removeprefix(FLOATING_PREFIX): lease
        for lease in draft.store.table(objects.Lease).by("kind", objects.Lease.KIND_FLOATING_ADDRESS)
    }
    for address in sorted(held.keys() - wanted.keys()):
        draft.delete(held[address])
    counts = {node_id: 0 for node_id, node in nodes.items() if _fit(node)}
    for address in held.keys() & wanted.keys():
        if held[address].holder_id in counts:
            counts[held[address].holder_id] += 1
    for address in sorted(wanted):
        lease = held.get(address)
        if not counts or (lease is not None and lease.holder_id in counts):
            continue
        ready = _ready_tasks(draft, wanted[address])
        best = min(counts, key=lambda node_id: (-ready.get(node_id, 0), counts[node_id], nodes[node_id].meta.name))
        counts[best] += 1
        if lease is not None:
            draft.edit(lease).holder_id = best
        else:
            fresh = draft.leases.floating_address(address, best)
            assert fresh is not None
            draft.create(fresh)


def _wanted(draft: Draft) -> dict[str, list[str]]:
    """Services' ids by the address that they ask for."""
    found: dict[str, list[str]] = {}
    for stored in draft.store.table(objects.Service):
        if stored.spec.floating_addresses and not stored.removing:
            for address in stored.spec.floating_addresses:
                found.setdefault(address, []).append(stored.meta.id)
    return found


def _fit(node: objects.Node) -> bool:
    return node.state == objects.NODE_STATE_READY and node.availability != objects.AVAILABILITY_DRAINING


def _ready_tasks(draft: Draft, service_ids: list[str]) -> dict[str, int]:
    """By node."""
    counts: dict[str, int] = {}
    for service_id in service_ids:
        for task in draft.tasks_of(service_id):
            if serving(task):
                counts[task.node_id] = counts.get(task.node_id, 0) + 1
    return counts
