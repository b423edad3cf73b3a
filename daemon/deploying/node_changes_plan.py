"""Changing and removing a host on an operator's word. Pure: each gives its answer and a transaction."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from daemon.identity.node_names import labels_error
from daemon.lookup import find_node
from daemon.orchestration.leases import leases_held_by
from daemon.orchestration.quantities import names_text
from daemon.orchestration.task_plan import mark_lost
from daemon.orchestration.task_states import ended
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


def plan_update_node(store: Store, request: control.UpdateNodeRequest) -> tuple[objects.Node, TransactionBuilder]:
    """The node as it will be: availability and labels. Raises Refused."""
    builder = TransactionBuilder()
    before = find_node(store, request.node)
    after = objects.Node()
    after.CopyFrom(before)
    if request.availability != objects.AVAILABILITY_UNSPECIFIED:
        after.availability = request.availability
    for key in request.remove_labels:
        if key not in before.meta.labels:
            raise Refused(f"{before.meta.name} has no label {key!r}", Kind.NOT_FOUND)
        after.meta.labels.pop(key, None)
    after.meta.labels.update(request.set_labels)
    problem = labels_error(after.meta.labels)
    if problem is not None:
        raise Refused(problem)
    if after != before:
        builder.update(after)
    return after, builder


def plan_remove_node(store: Store, request: control.RemoveNodeRequest) -> tuple[str, TransactionBuilder]:
    """What to tell, and the transaction: the node, its leases, and its tasks as lost for good.

    Raises Refused (NOT_POSSIBLE) where something would be lost, unless the request says force."""
    node = find_node(store, request.node)
    tasks = store.table(objects.Task).by("node", node.meta.id)
    volumes = store.table(objects.Volume).by("node", node.meta.id)
    if not request.force:
        _check_removable(node, [task for task in tasks if not ended(task)], volumes)
    builder = TransactionBuilder()
    for lease in leases_held_by(store, node.meta.id):
        builder.delete(lease)
    for task in tasks:
        _lose(store, builder, task, f"host {node.meta.name} was removed from the cluster")
    for volume in volumes:
        unbound = objects.Volume()
        unbound.CopyFrom(volume)
        unbound.node_id = ""
        builder.update(unbound)
    for image in store.table(objects.Image):
        if node.meta.id in image.node_ids:
            known = objects.Image()
            known.CopyFrom(image)
            known.node_ids.remove(node.meta.id)
            builder.update(known)
    builder.delete(node)
    message = f"{node.meta.name} was removed."
    if volumes:
        message += f" What it held of {_volumes(volumes)} is not in the cluster any more; they begin empty elsewhere."
    return message, builder


def _check_removable(node: objects.Node, tasks: list[objects.Task], volumes: list[objects.Volume]) -> None:
    name = node.meta.name
    if node.state != objects.NODE_STATE_DOWN and node.availability != objects.AVAILABILITY_DRAINING:
        raise Refused(
            f"{name} is in use; move its tasks away first with `fairway node drain {name}`, or remove it at once "
            "with --force",
            Kind.NOT_POSSIBLE,
        )
    if tasks and node.state != objects.NODE_STATE_DOWN:
        raise Refused(
            f"{name} still runs {len(tasks)} task{'s' if len(tasks) > 1 else ''}; wait until the drain is done "
            f"(`fairway node show {name}`), or remove it at once with --force",
            Kind.NOT_POSSIBLE,
        )
    if volumes:
        raise Refused(
            f"{name} holds the data of {_volumes(volumes)}, which would be lost to the cluster; remove them with "
            "their app (`fairway rm APP --volumes`), or give them up with --force",
            Kind.NOT_POSSIBLE,
        )


def _volumes(volumes: list[objects.Volume]) -> str:
    names = sorted(f"{volume.app}/{volume.meta.name}" for volume in volumes)
    return f"volume {names[0]}" if len(names) == 1 else f"volumes {names_text(names, 'volumes')}"


def _lose(store: Store, builder: TransactionBuilder, task: objects.Task, why: str) -> None:
    after = objects.Task()
    after.CopyFrom(task)
    if not ended(task):
        mark_lost(after, why)
    after.address = ""
    if after != task:
        builder.update(after)
    for lease in leases_held_by(store, task.meta.id):
        builder.delete(lease)
