"""What hosts report, as one transaction: task states, descriptions, addresses and images held. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from daemon.doctor.conditions_plan import merged
from daemon.leader.status_plan import StatusMerge
from proto import objects_pb2 as objects
from proto.host_pb2 import EncryptionReport, HostReport
from raft.store import Store
from raft.transaction import TransactionBuilder

KEYS_MAX, KEY_BYTES = 2, 32
PROBLEM_CHARACTERS_MAX = 500


def plan_reports(store: Store, reports: Iterable[tuple[str, HostReport]], now_unix_ms: int) -> TransactionBuilder:
    """`reports`: (node id, report) in the order of their arrival. No operations where nothing changed."""
    tasks = StatusMerge(store, now_unix_ms)
    nodes: dict[str, objects.Node] = {}
    images: dict[str, objects.Image] = {}
    discarded: set[tuple[str, str]] = set()  # (volume, host)
    for node_id, report in reports:
        if report.tasks:
            tasks.add(node_id, report.tasks)
        if report.HasField("description") or report.address:
            _edit(store, nodes, node_id, partial(_describe, report=report))
        if report.conditions_changed:
            noted = partial(_note_conditions, report=report, store=store, now_unix_ms=now_unix_ms)
            _edit(store, nodes, node_id, noted)
        if report.HasField("encryption"):
            _edit(store, nodes, node_id, partial(_note_encryption, report=report.encryption))
        if report.images_changed:
            _hold(store, images, node_id, set(report.images))
        discarded |= {(volume_id, node_id) for volume_id in report.volumes_discarded}
    builder = tasks.builder()
    for volume_id, node_id in sorted(discarded):
        volume = store.get(objects.Volume, volume_id)
        if volume is not None and volume.discard and volume.node_id == node_id:
            builder.delete(volume)
    for node in nodes.values():
        builder.update(node)
    for image in images.values():
        builder.update(image)
    return builder


def _edit(store: Store, changed: dict[str, objects.Node], node_id: str, change: Callable[[objects.Node], None]) -> None:
    """Changes a copy of a node as the reports before left it; it counts only where it then differs."""
    before = changed.get(node_id) or store.get(objects.Node, node_id)
    if before is None:
        return
    node = objects.Node()
    node.CopyFrom(before)
    change(node)
    if node != before:
        changed[node_id] = node


def _describe(node: objects.Node, report: HostReport) -> None:
    if report.HasField("description"):
        node.description.CopyFrom(report.description)
    if report.address:  # the first of a session: the description may take a while, who runs what is known at once
        node.address = report.address
        node.description.feature_level = report.feature_level
        node.description.fairway_version = report.fairway_version
    missing = list(node.description.missing_features)
    if node.state == objects.NODE_STATE_READY:
        node.state_message = "lacks " + "; ".join(missing) if missing else ""


def _note_conditions(node: objects.Node, report: HostReport, store: Store, now_unix_ms: int) -> None:
    down = {node.meta.id for node in store.table(objects.Node) if node.state == objects.NODE_STATE_DOWN}
    conditions = merged(node.conditions, report.conditions, down, now_unix_ms)
    del node.conditions[:]
    node.conditions.extend(conditions)


def _note_encryption(node: objects.Node, report: EncryptionReport) -> None:
    del node.network.keys[:]
    node.network.keys.extend(key for key in report.keys[:KEYS_MAX] if len(key.public_key) == KEY_BYTES)
    node.network.encryption_problem = report.problem[:PROBLEM_CHARACTERS_MAX]


def _hold(store: Store, changed: dict[str, objects.Image], node_id: str, held: set[str]) -> None:
    for known in store.table(objects.Image):
        before = changed.get(known.meta.id, known)
        holds = before.manifest_digest in held
        if holds == (node_id in before.node_ids):
            continue
        image = objects.Image()
        image.CopyFrom(before)
        if holds:
            image.node_ids.append(node_id)
        else:
            image.node_ids.remove(node_id)
        changed[known.meta.id] = image
