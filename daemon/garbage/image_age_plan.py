"""Which images leave the cluster because nothing has used them for long, or because disks are full. Pure.

Only those that came from a registry and can come from there again: what was loaded has no other source.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.garbage.garbage_plan import CONDITION
from daemon.orchestration.task_states import ended
from daemon.pulling.image_plan import unneeded
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

DAY_MS = 86_400_000
PRESSURE_UNUSED_MS_MIN = 3_600_000  # of what goes because a disk is full: it may be deployed any moment


@dataclass(frozen=True)
class Leaving:
    """An image that the cluster lets go."""

    name: str
    size_bytes: int
    why: str


def plan_image_ages(store: Store, now_unix_ms: int, keep_days: int) -> tuple[TransactionBuilder, list[Leaving]]:
    """Notes since when an image is not used, and removes what was not used for `keep_days` (0: none for that). Where
    hosts say that their disks are full, the one that was unused for longest goes as well: one a look, for only its
    end shows how much that frees."""
    builder, leaving = TransactionBuilder(), []
    images = list(store.table(objects.Image))
    free = {image.meta.id for image in unneeded(store)}
    used_last = _used_last(store) if free else {}
    since: dict[str, int] = {}
    for image in images:
        if image.meta.id in free:
            known = image.unused_since_unix_ms or now_unix_ms
            since[image.meta.id] = max(known, used_last.get(image.manifest_digest, 0), image.pulled_unix_ms)
    going: dict[str, str] = {}
    pulled = [image for image in images if image.meta.id in since and image.pulled_unix_ms]
    if keep_days:
        for image in pulled:
            if now_unix_ms - since[image.meta.id] >= keep_days * DAY_MS:
                going[image.meta.id] = f"nothing has used it for {keep_days} days"
    full = {node.meta.id: node.meta.name for node in store.table(objects.Node) if disk_is_full(node)}
    if full:
        old = [
            image
            for image in pulled
            if image.meta.id not in going
            and now_unix_ms - since[image.meta.id] >= PRESSURE_UNUSED_MS_MIN
            and full.keys() & set(image.node_ids)
        ]
        for image in sorted(old, key=lambda image: (since[image.meta.id], image.meta.name))[:1]:
            names = ", ".join(sorted(full[node] for node in full.keys() & set(image.node_ids)))
            going[image.meta.id] = f"nothing uses it, and the disk of {names} is full"
    for image in images:
        if image.meta.id in going:
            builder.delete(image)
            leaving.append(Leaving(image.meta.name, image.size_bytes, going[image.meta.id]))
        elif image.unused_since_unix_ms != since.get(image.meta.id, 0):
            noted = objects.Image()
            noted.CopyFrom(image)
            noted.unused_since_unix_ms = since.get(image.meta.id, 0)
            builder.update(noted)
    return builder, leaving


def _used_last(store: Store) -> dict[str, int]:
    """Manifest digest -> when the last of its tasks that are remembered ended."""
    found: dict[str, int] = {}
    for task in store.table(objects.Task):
        if ended(task):
            for digest in (task.image_digest, *(each.image_digest for each in task.spec.container.init_tasks)):
                found[digest] = max(found.get(digest, 0), task.status.finished_unix_ms)
    return found


def disk_is_full(node: objects.Node) -> bool:
    """By the node's own words: above its high watermark, with nothing more to free."""
    return any(condition.kind == CONDITION for condition in node.conditions)
