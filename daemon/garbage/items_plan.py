"""From what was seen on a host's disks to things that may go or are needed. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from daemon.garbage.garbage_plan import Item
from proto import objects_pb2 as objects
from runtime.image_space import ImageSpace
from storage.volumes import LocalVolume

COPIES_KEPT = 2  # of an image, on other hosts, before this one gives it up
PARTIAL_KEPT_MS = 6 * 3_600_000  # whole layers of a pull that failed, for its next try
UPLOAD_KEPT_MS = 6 * 3_600_000  # an archive that was being loaded when the daemon ended
ANONYMOUS_KEPT_MS = 600_000
DAY_MS = 86_400_000
UNSURE = "no leader has said yet what is needed"
LOOSE, CONTAINERS = "loose", "containers"  # ids


@dataclass(frozen=True)
class Folder:
    """Files of one thing on a disk."""

    id: str
    size_bytes: int
    changed_unix_ms: int


def image_items(
    space: ImageSpace,
    file_system: int,
    needed: Collection[str],
    spare: Collection[str],
    unused_unix_ms: Mapping[str, int],
    sure: bool,
) -> list[Item]:
    """`needed`: digests of images that tasks here are made of; `spare`: that others keep; `sure`: these are all."""
    found = []
    for image in space.images:
        since = unused_unix_ms.get(image.digest, image.came_unix_ms)
        name = image.names[0]
        by_tasks = "tasks here need them" if image.digest in needed else "" if sure else UNSURE
        alone = "" if image.digest in spare else "no two other hosts keep them"
        held = by_tasks or alone
        found.append(Item("image", image.digest, name, file_system, image.blobs, held, since, by_hand=False))
        if image.snapshots:
            found.append(Item("unpacked", image.digest, name, file_system, image.snapshots, by_tasks, since))
    if space.containers:
        held = "containers stand on them"
        found.append(Item("unpacked", CONTAINERS, "layers of containers", file_system, space.containers, held))
    if space.loose or space.idle_leases:
        held = "an image is just coming" if space.writing else ""
        since = space.loose_since_unix_ms
        name = "layers of no image"
        found.append(Item("partial", LOOSE, name, file_system, space.loose, held, since, PARTIAL_KEPT_MS))
    return found


def log_items(
    logs: Iterable[Folder], file_system: int, in_use: Callable[[str], bool], keep_days: int, sure: bool
) -> list[Item]:
    """Logs are named after their tasks."""
    found = []
    keep_ms = keep_days * DAY_MS if keep_days else None
    for log in logs:
        held = "their tasks run" if in_use(log.id) else "" if sure else UNSURE
        parts = {f"log/{log.id}": log.size_bytes}
        found.append(Item("log", log.id, log.id, file_system, parts, held, log.changed_unix_ms, keep_ms))
    return found


def volume_items(
    volumes: Iterable[tuple[LocalVolume, Folder]],
    file_system: int,
    known: Collection[str],
    in_use: Callable[[str], bool],
    sure: bool,
) -> list[Item]:
    """Data of a named volume that the cluster does not know goes only by hand: it may be of a state that a restored
    backup does not have."""
    found = []
    for volume, folder in volumes:
        parts = {f"volume/{volume.id}": folder.size_bytes}
        since, keep_ms, by_itself = folder.changed_unix_ms, None, False
        name = f"{volume.app}/{volume.name}" if volume.name else f"anonymous, of task {volume.task_id}"
        held = "" if sure else UNSURE
        if volume.task_id:
            held = "tasks have them" if in_use(volume.task_id) else held
            keep_ms, by_itself = ANONYMOUS_KEPT_MS, True
        elif volume.id in known:
            held = "the cluster has them"
        found.append(Item("volume", volume.id, name, file_system, parts, held, since, keep_ms, by_pressure=by_itself))
    return found


def upload_items(files: Iterable[Folder], file_system: int, now_unix_ms: int) -> list[Item]:
    """Archives of `image load`; one that is being loaded is younger."""
    found = []
    for file in files:
        held = "they may be being loaded" if now_unix_ms - file.changed_unix_ms < UPLOAD_KEPT_MS else ""
        parts = {f"upload/{file.id}": file.size_bytes}
        found.append(Item("upload", file.id, file.id, file_system, parts, held, file.changed_unix_ms, UPLOAD_KEPT_MS))
    return found


def keepers(digest: str, holders: Iterable[str]) -> list[str]:
    """Hosts that keep an image when disks fill: every host that asks finds the same ones, and other ones for another
    image (rendezvous hashing: Thaler, Ravishankar, doi 10.1109/90.663936)."""
    ranked = sorted(set(holders), key=lambda node: hashlib.sha256(f"{digest} {node}".encode()).digest())
    return ranked[:COPIES_KEPT]


def others_that_keep(images: Sequence[objects.Image], nodes: Collection[str], digest: str, own: str) -> list[str]:
    """Hosts that hold an image for this one; empty where this one must keep it, or the cluster does not have it."""
    held_by = {node for image in images if image.manifest_digest == digest for node in image.node_ids if node in nodes}
    found = keepers(digest, held_by)
    return found if len(found) == COPIES_KEPT and own not in found else []
