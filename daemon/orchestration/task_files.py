"""Versions of secrets and configs: who uses them, and which are of no use any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.orchestration.draft import Draft
from daemon.orchestration.task_states import gone
from proto import objects_pb2 as objects
from raft.store import Store

KIND_WORDS: dict[int, str] = {objects.FILE_KIND_SECRET: "secret", objects.FILE_KIND_CONFIG: "config"}


def kind_word(kind: int) -> str:
    """ "secret" or "config"."""
    return KIND_WORDS.get(kind, "file")


def words_of(mount: objects.FileMount) -> str:
    """ "secret db-password (version 2)"."""
    return f"{kind_word(mount.kind)} {mount.name} (version {mount.version})"


def versions_of(store: Store, tenant: str, kind: objects.FileKind.ValueType, name: str) -> list[objects.TaskFile]:
    """All that there are, oldest first."""
    return sorted(store.table(objects.TaskFile).by("name", (tenant, kind, name)), key=lambda file: file.version)


def newest_of(store: Store, tenant: str, kind: objects.FileKind.ValueType, name: str) -> objects.TaskFile | None:
    return next(iter(versions_of(store, tenant, kind, name)[::-1]), None)


def missing_files(store: Store, spec: objects.ServiceSpec) -> list[str]:
    """What a spec refers to and the cluster has no more, in words."""
    return [words_of(mount) for mount in spec.container.files if store.get(objects.TaskFile, mount.file_id) is None]


def remove_unused_files(draft: Draft) -> None:
    """Versions that no service is or could go back to, and no task runs with: of an app's own all of them, of an
    operator's those that a newer one has replaced."""
    table = draft.store.table(objects.TaskFile)
    if not len(table):
        return
    used: set[str] = set()
    for service in draft.store.table(objects.Service):
        latest = draft.get(objects.Service, service.meta.id)
        if latest is not None:
            used |= _ids(latest.spec.container.files)
            for revision in latest.revisions:
                used |= _ids(revision.spec.container.files)
    unused = [file for file in table if file.meta.id not in used and (file.app or _replaced(draft.store, file))]
    if not unused:
        return
    for task in draft.tasks():
        if task.spec.container.files and not gone(task):
            used |= _ids(task.spec.container.files)
    for file in unused:
        if file.meta.id not in used and not draft.full:
            draft.delete(file)


def _replaced(store: Store, file: objects.TaskFile) -> bool:
    newest = newest_of(store, file.meta.tenant, file.kind, file.meta.name)
    return newest is not None and newest.version > file.version


def _ids(mounts: Iterable[objects.FileMount]) -> set[str]:
    return {mount.file_id for mount in mounts}
