"""What restore and recover keep and lose, in sentences, before anything is changed. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from daemon.errors import Kind, Refused
from daemon.orchestration.quantities import names_text
from daemon.orchestration.task_states import ended
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.backup_pb2 import BackupHeader
from raft.recovery import StoredMember
from raft.store import Store

NAMES_MAX = 10


def restore_plan(
    store: Store, header: BackupHeader, node: objects.Node, replaced: Iterable[objects.Node]
) -> control.DisasterPlan:
    """`store` is the backup's, without the nodes that are `replaced` by `node` and not yet with `node`."""
    replaced_names = sorted(other.meta.name for other in replaced)
    others = sorted(other.meta.name for other in store.table(objects.Node))
    plan = control.DisasterPlan(revision=header.revision, dropped_nodes=replaced_names)
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header.created_unix_ms / 1000))
    plan.kept.append(
        f"The cluster {header.cluster_name} as it was at {made}: revision {header.revision}, {_contents(store)}."
    )
    plan.kept.append("Its certificate authority: certificates of its hosts and operators stay good.")
    plan.kept.append(f"{node.meta.name} ({node.address}) is its only voter.")
    plan.lost.append(f"Everything that was changed after {made}.")
    if replaced_names:
        plan.lost.append(f"{_names(replaced_names)}: this host takes its name or address and stands in its place.")
    _add_volumes(plan, store, others)
    if others:
        plan.next.append(
            f"{_names(others)}: on each host that still exists run `fairway join {node.address} --token TOKEN` "
            "(`fairway token create`); remove the others with `fairway node rm --force NAME`."
        )
    plan.next.append("Load the images again that no joined host holds: `fairway image load`.")
    plan.next.append("The old cluster must not run any more, or two clusters will claim the same hosts and addresses.")
    return plan


def recover_plan(
    stored: StoredMember, own_id: str, answers: Mapping[str, host.RaftMember], heard_ms: int
) -> control.DisasterPlan:
    """`answers`: the other voters that could be asked; `heard_ms`: since a leader was heard, -1: never.

    Raises Refused (NOT_POSSIBLE) where enough voters are up for a majority, or where another survivor has more.
    """
    voters = {peer.node_id for peer in stored.membership}
    nodes = {node.meta.id: node for node in stored.store.table(objects.Node)}
    names = {node_id: nodes[node_id].meta.name if node_id in nodes else node_id for node_id in {*voters, *nodes}}
    _require_disaster(voters, own_id, answers, names)
    lost_voters = sorted(names[node_id] for node_id in voters - {own_id})
    plan = control.DisasterPlan(
        revision=stored.store.revision,
        last_index=stored.last_index,
        unconfirmed_entries=stored.unconfirmed_entries,
        dropped_nodes=lost_voters,
    )
    plan.kept.append(f"This host's state: revision {stored.store.revision}, {_contents(stored.store)}.")
    if stored.unconfirmed_entries:
        plan.kept.append(
            f"{stored.unconfirmed_entries} entries at the end of its log that are not known to be committed: they "
            "are kept, since the lost voters may have acknowledged them."
        )
    plan.kept.append("The certificate authority, all certificates, all hosts, and every container that runs.")
    since = f"since a leader was heard {heard_ms / 1000:.0f} s ago" if heard_ms >= 0 else "that this host never got"
    plan.lost.append(f"What the lost voters committed {since} without this host; from here nobody can say how much.")
    plan.lost.append(f"The votes of {_names(lost_voters)}.")
    down = sorted(names[node_id] for node_id in voters - {own_id} if node_id not in answers)
    _add_tasks(plan, stored.store, {node_id for node_id in voters - {own_id} if node_id not in answers}, names)
    _add_volumes(plan, stored.store, down)
    plan.lost.append(
        "Should the lost voters run after all, behind a broken network: everything that they commit until they "
        "meet this host again. Make sure first that they are off."
    )
    plan.next.append(
        "Hosts that come back follow this one by themselves: what they had beyond its state is thrown away, and "
        "the cluster grows to three voters again."
    )
    plan.next.append("Remove hosts that are gone for good with `fairway node rm --force NAME`.")
    return plan


def _require_disaster(
    voters: set[str], own_id: str, answers: Mapping[str, host.RaftMember], names: Mapping[str, str]
) -> None:
    if own_id not in voters:
        raise Refused("cannot recover: this host had no vote; recover on one that had", Kind.NOT_POSSIBLE)
    if len(voters) == 1:
        raise Refused("cannot recover: this host is the only voter already; nothing is lost", Kind.NOT_POSSIBLE)
    up = {own_id, *(node_id for node_id, answer in answers.items() if answer.role not in ("stopped", "none"))} & voters
    if 2 * len(up) > len(voters):
        listed = _names(sorted(names[node_id] for node_id in up))
        raise Refused(
            f"cannot recover: {len(up)} of {len(voters)} voters are up ({listed}), which is a majority: nothing is "
            "lost. See `fairway raft status`",
            Kind.NOT_POSSIBLE,
        )


def require_best_survivor(
    stored: StoredMember, answers: Mapping[str, host.RaftMember], names: Mapping[str, str]
) -> None:
    """Raises Refused where another survivor that answers has applied more than this host has in its log."""
    for node_id, answer in answers.items():
        if answer.applied_revision > stored.store.revision:
            raise Refused(
                f"cannot recover here: {names.get(node_id, node_id)} is up as well and has revision "
                f"{answer.applied_revision}, this host only {stored.store.revision}: recover there, and less is lost",
                Kind.NOT_POSSIBLE,
            )


def _contents(store: Store) -> str:
    running = sum(not ended(task) for task in store.table(objects.Task))
    counts = (
        (len(store.table(objects.Node)), "node"),
        (len(store.table(objects.App)), "app"),
        (len(store.table(objects.Service)), "service"),
        (running, "task"),
        (len(store.table(objects.Volume)), "volume"),
    )
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _add_tasks(plan: control.DisasterPlan, store: Store, down: set[str], names: Mapping[str, str]) -> None:
    lost = [task for task in store.table(objects.Task) if task.node_id in down and not ended(task)]
    if lost:
        where = _names(sorted({names[task.node_id] for task in lost}))
        plan.lost.append(f"{len(lost)} tasks on {where}: they are started again on hosts that are up.")


def _add_volumes(plan: control.DisasterPlan, store: Store, node_names: Iterable[str]) -> None:
    by_id = {node.meta.id: node.meta.name for node in store.table(objects.Node)}
    wanted = set(node_names)
    held = sorted(
        f"{volume.app}/{volume.meta.name} on {by_id[volume.node_id]}"
        for volume in store.table(objects.Volume)
        if by_id.get(volume.node_id) in wanted
    )
    if held:
        plan.lost.append(f"The data of volumes, unless their hosts come back: {_names(held, 'volumes')}.")


def _names(names: list[str], noun: str = "hosts") -> str:
    return names_text(names, noun, NAMES_MAX)
