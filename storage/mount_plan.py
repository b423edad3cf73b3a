"""From the mounts of a task's spec to what is to be prepared for it. Pure."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from proto.objects_pb2 import Mount
from storage.errors import InvalidMount


@dataclass(frozen=True)
class VolumeNeed:
    """A volume by its name within the app; "" is an anonymous one, which lives as long as the task."""

    name: str
    target: str
    read_only: bool = False
    no_copy: bool = False  # it stays as empty as it is
    subpath: str = ""  # within it; empty: all of it


@dataclass(frozen=True)
class BindNeed:
    """A path of the host that its configuration must allow."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class TmpfsNeed:
    target: str
    size_bytes: int = 0  # 0: the runtime's default
    mode: int = 0  # 0: the runtime's default
    read_only: bool = False


Need = VolumeNeed | BindNeed | TmpfsNeed


def plan(mounts: Iterable[Mount], image_volumes: Iterable[str] = ()) -> list[Need]:
    """What a task needs, outer targets before inner ones.

    `image_volumes`: paths that the image declares as volumes; each that no mount covers becomes an
    anonymous volume, as in Docker. Raises InvalidMount where a target is not an absolute path below /, is
    named twice, or a source is missing or of the wrong form.
    """
    needs: dict[str, Need] = {}
    for mount in mounts:
        need = _need(mount)
        if need.target in needs:
            raise InvalidMount(f"two mounts have the target {need.target}: leave one out")
        needs[need.target] = need
    for path in image_volumes:
        target = clean_target(path)
        needs.setdefault(target, VolumeNeed("", target))
    return sorted(needs.values(), key=lambda need: (need.target.count("/"), need.target))


def clean_target(target: str) -> str:
    """The path without . and .. parts; raises InvalidMount."""
    cleaned = posixpath.normpath("/" + target.lstrip("/"))
    if not target.startswith("/") or cleaned == "/" or "\0" in target:
        raise InvalidMount(f"mount target {target!r}: it must be an absolute path below /")
    return cleaned


def clean_subpath(subpath: str) -> str:
    """The path without . parts; "" for none. Raises InvalidMount where it leads out of the volume."""
    if not subpath:
        return ""
    cleaned = posixpath.normpath(subpath)
    if subpath.startswith("/") or cleaned in (".", "..") or cleaned.startswith("../") or "\0" in subpath:
        raise InvalidMount(f"subpath {subpath!r}: it must be a path within the volume")
    return cleaned


def anonymous_id(task_id: str, target: str) -> str:
    """The id of a task's anonymous volume; the same each time, so that preparing may be repeated."""
    return f"{task_id}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"


def _need(mount: Mount) -> Need:
    target = clean_target(mount.target)
    if mount.kind == Mount.Kind.KIND_TMPFS:
        if mount.source:
            raise InvalidMount(f"mount {target}: a tmpfs has no source, but {mount.source!r} is given")
        if mount.tmpfs_size_bytes < 0:
            raise InvalidMount(f"mount {target}: the size {mount.tmpfs_size_bytes} is negative")
        return TmpfsNeed(target, mount.tmpfs_size_bytes, mount.tmpfs_mode, mount.read_only)
    if mount.kind == Mount.Kind.KIND_VOLUME:
        if "/" in mount.source:
            raise InvalidMount(f"mount {target}: {mount.source!r} is no name of a volume")
        if mount.subpath and not mount.source:
            raise InvalidMount(f"mount {target}: an anonymous volume has no subpath")
        return VolumeNeed(mount.source, target, mount.read_only, mount.no_copy, clean_subpath(mount.subpath))
    if mount.kind == Mount.Kind.KIND_BIND:
        if not mount.source.startswith("/"):
            raise InvalidMount(f"mount {target}: the source {mount.source!r} must be an absolute path")
        return BindNeed(mount.source, target, mount.read_only)
    raise InvalidMount(f"mount {target}: its kind is not known; use a volume, a bind or a tmpfs")
