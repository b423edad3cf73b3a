"""Operators' changes of secrets and configs, and which versions a deployed app gets. Pure: what is secret comes here
sealed already (daemon/identity/file_sealing.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from daemon.deploying.revisions_plan import start_rollout
from daemon.errors import Kind, Refused
from daemon.identity.file_sealing import same_content
from daemon.orchestration.kinds import is_job
from daemon.orchestration.task_files import kind_word, newest_of, versions_of
from daemon.orchestration.task_states import gone
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

FILE_BYTES_MAX = 500 << 10
DEPLOY_BYTES_MAX = 1 << 20  # of new content in one deploy: one transaction takes it
MOUNTS_MAX = 100  # of one service
FILES_MAX = 5_000  # versions in the cluster
DEFAULT_TENANT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER_MAX = 2**31 - 1  # user and group ids


def check_file(kind: int, name: str, content: bytes) -> None:
    """Raises Refused; never says what is in it."""
    word = kind_word(kind)
    if kind not in (objects.FILE_KIND_SECRET, objects.FILE_KIND_CONFIG):
        raise Refused("neither a secret nor a config is asked for")
    if _NAME.fullmatch(name) is None:
        raise Refused(
            f"{name!r} cannot be the name of a {word}: use at most 128 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if not content:
        raise Refused(f"{word} {name} is empty")
    if len(content) > FILE_BYTES_MAX:
        raise Refused(f"{word} {name} has {len(content)} bytes; at most {FILE_BYTES_MAX} are possible")


def mount_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """What is wrong with the files that a service wants, in words."""
    files = spec.container.files
    if len(files) > MOUNTS_MAX:
        yield f"it has {len(files)} secrets and configs; at most {MOUNTS_MAX} are possible"
    targets = {mount.target for mount in spec.container.mounts}
    for file in files:
        what = f"{kind_word(file.kind)} {file.name}"
        if file.kind not in (objects.FILE_KIND_SECRET, objects.FILE_KIND_CONFIG) or not file.name:
            yield "it names a file that is neither a secret nor a config"
        elif not file.target.startswith("/") or "\0" in file.target or file.target.endswith("/"):
            yield f"the target {file.target!r} of {what} is not the absolute path of a file"
        elif file.target in targets:
            yield f"it has two things at {file.target}"
        elif max(file.uid, file.gid) > _NUMBER_MAX or file.mode > 0o777:
            yield f"the owner or mode of {what} is not one that a file can have"
        targets.add(file.target)


@dataclass
class AppFiles:
    """Settles which version each file of an app's services is, and makes the versions that are new."""

    store: Store
    tenant: str
    app: str
    prepared: Sequence[objects.TaskFile]
    builder: TransactionBuilder
    new_id: Callable[[], str]
    _versions: dict[tuple[int, str], objects.TaskFile] = field(default_factory=dict)
    _new_bytes: int = 0

    def settle(self, spec: objects.ServiceSpec) -> None:
        """Sets the versions in a spec, in place. Raises Refused: NOT_FOUND for what is not in the cluster, CONFLICT
        for a name that is somebody else's."""
        if spec.container.files:
            self.builder.needs(WORKLOADS_LEVEL)
        for mount in spec.container.files:
            version = self._version(mount)
            mount.file_id, mount.version = version.meta.id, version.version

    def _version(self, mount: objects.FileMount) -> objects.TaskFile:
        key = (mount.kind, mount.name)
        known = self._versions.get(key)
        if known is None:
            own = next((one for one in self.prepared if (one.kind, one.meta.name) == key), None)
            known = self._versions[key] = self._external(mount) if own is None else self._own(own)
        return known

    def _external(self, mount: objects.FileMount) -> objects.TaskFile:
        newest = newest_of(self.store, self.tenant, mount.kind, mount.name)
        if newest is None:
            word = kind_word(mount.kind)
            raise Refused(
                f"there is no {word} {mount.name} in the cluster: `fairway {word} create {mount.name} FILE` makes it",
                Kind.NOT_FOUND,
            )
        self.builder.check(newest)
        return newest

    def _own(self, prepared: objects.TaskFile) -> objects.TaskFile:
        word, name = kind_word(prepared.kind), prepared.meta.name
        newest = newest_of(self.store, self.tenant, prepared.kind, name)
        if newest is not None and newest.app != self.app:
            whose = f"of app {newest.app}" if newest.app else "an operator's"
            raise Refused(
                f"{word} {name} is {whose} already: give the app's own another name, or make it external: true",
                Kind.CONFLICT,
            )
        if newest is not None and same_content(newest, prepared) and newest.meta.labels == prepared.meta.labels:
            self.builder.check(newest)
            return newest
        self._new_bytes += prepared.size_bytes
        if self._new_bytes > DEPLOY_BYTES_MAX:
            raise Refused(
                f"the app's secrets and configs are more than {DEPLOY_BYTES_MAX} bytes of new content at once: make "
                f"some of them with `fairway {word} create` and say external: true"
            )
        return _created(self.store, self.builder, prepared, newest, self.new_id(), self.app)


def plan_create_file(
    store: Store,
    prepared: objects.TaskFile,
    request: control.CreateFileRequest,
    now_unix_ms: int,
    new_id: Callable[[], str],
) -> tuple[control.CreateFileReply, TransactionBuilder]:
    """A secret or config, or a new version of one, which the services that use it get by new tasks. Raises Refused."""
    builder, reply = TransactionBuilder(), control.CreateFileReply()
    tenant, kind, name = prepared.meta.tenant, prepared.kind, prepared.meta.name
    word = kind_word(kind)
    newest = newest_of(store, tenant, kind, name)
    if not request.new_version and newest is not None:
        change = "; a new version of it: `fairway secret rotate`" if kind == objects.FILE_KIND_SECRET else ""
        raise Refused(f"there is a {word} {name} already{change}", Kind.CONFLICT)
    if request.new_version and newest is None:
        raise Refused(f"there is no {word} {name}; `fairway {word} create` makes it", Kind.NOT_FOUND)
    if newest is not None and newest.app:
        raise Refused(_in_file(newest), Kind.NOT_POSSIBLE)
    if store.table(objects.Tenant).unique("name", tenant) is None:
        if tenant != DEFAULT_TENANT:
            raise Refused(f"there is no tenant {tenant}", Kind.NOT_FOUND)
        builder.create(objects.Tenant(meta=objects.Meta(id=new_id(), name=tenant, format=1)))
    if newest is not None and not prepared.meta.labels:
        prepared.meta.labels.update(newest.meta.labels)
    made = _created(store, builder, prepared, newest, new_id(), "")
    reply.file.CopyFrom(shown(made))
    if newest is not None and not request.keep_services:
        reply.services.extend(_move_services(store, builder, made, newest.version, now_unix_ms))
    return reply, builder


def _created(
    store: Store,
    builder: TransactionBuilder,
    prepared: objects.TaskFile,
    newest: objects.TaskFile | None,
    new_id: str,
    app: str,
) -> objects.TaskFile:
    if len(store.table(objects.TaskFile)) >= FILES_MAX:
        raise Refused(f"the cluster has {FILES_MAX} versions of secrets and configs already", Kind.EXHAUSTED)
    made = objects.TaskFile()
    made.CopyFrom(prepared)
    made.meta.id, made.app = new_id, app
    made.version = newest.version + 1 if newest is not None else 1
    builder.create(made)
    return made


def _move_services(
    store: Store, builder: TransactionBuilder, file: objects.TaskFile, before: int, now_unix_ms: int
) -> list[str]:
    """Services that use a file go on to its new version; their names."""
    reason = f"{kind_word(file.kind)} {file.meta.name}: version {before} -> {file.version}"
    moved = []
    for service in store.table(objects.Service):
        if service.removing or service.meta.tenant != file.meta.tenant or not _mounts(service.spec, file):
            continue
        after = objects.Service()
        after.CopyFrom(service)
        for mount in _mounts(after.spec, file):
            mount.file_id, mount.version = file.meta.id, file.version
        if is_job(after.spec):
            after.generation += 1
        else:
            start_rollout(service, after, [reason], now_unix_ms)
        builder.update(after)
        moved.append(f"{service.app}/{service.meta.name}")
    return sorted(moved)


def _mounts(spec: objects.ServiceSpec, file: objects.TaskFile) -> list[objects.FileMount]:
    return [mount for mount in spec.container.files if (mount.kind, mount.name) == (file.kind, file.meta.name)]


def plan_remove_file(
    store: Store, tenant: str, kind: objects.FileKind.ValueType, name: str
) -> tuple[objects.TaskFile, TransactionBuilder]:
    """All versions of it. Raises Refused while a service or a task uses one."""
    builder = TransactionBuilder()
    versions = versions_of(store, tenant, kind, name)
    word = kind_word(kind)
    if not versions:
        raise Refused(f"there is no {word} {name}; `fairway {word} ls` lists them", Kind.NOT_FOUND)
    if versions[-1].app:
        raise Refused(_in_file(versions[-1]), Kind.NOT_POSSIBLE)
    users = sorted({user for file in versions for user in users_of(store, file)})
    if users:
        raise Refused(f"{word} {name} is in use by {', '.join(users)}; deploy without it first", Kind.NOT_POSSIBLE)
    ids = {file.meta.id for file in versions}
    for task in store.table(objects.Task):
        if not gone(task) and ids & {mount.file_id for mount in task.spec.container.files}:
            raise Refused(
                f"{word} {name} is in use by task {task.app}/{task.meta.name}, which has not ended yet; try again",
                Kind.NOT_POSSIBLE,
            )
    for file in versions:
        builder.delete(file)
    return shown(versions[-1]), builder


def list_files(store: Store, tenant: str, kind: objects.FileKind.ValueType, name: str) -> list[control.FileView]:
    """All versions of one, newest first; without a name the newest of each, by tenant and name. Raises Refused."""
    if name:
        found = versions_of(store, tenant, kind, name)[::-1]
        if not found:
            raise Refused(
                f"there is no {kind_word(kind)} {name}; `fairway {kind_word(kind)} ls` lists them", Kind.NOT_FOUND
            )
    else:
        newest: dict[tuple[str, str], objects.TaskFile] = {}
        for file in store.table(objects.TaskFile):
            key = (file.meta.tenant, file.meta.name)
            if file.kind == kind and (key not in newest or newest[key].version < file.version):
                newest[key] = file
        found = [newest[key] for key in sorted(newest)]
    return [control.FileView(file=shown(file, content=bool(name)), services=users_of(store, file)) for file in found]


def users_of(store: Store, file: objects.TaskFile) -> list[str]:
    """APP/SERVICE of the services whose tasks get this version."""
    return sorted(
        f"{service.app}/{service.meta.name}"
        for service in store.table(objects.Service)
        if any(mount.file_id == file.meta.id for mount in service.spec.container.files)
    )


def shown(file: objects.TaskFile, *, content: bool = False) -> objects.TaskFile:
    """As operators may see it: a config with its content where that is asked for, a secret never with its own."""
    copy = objects.TaskFile()
    copy.CopyFrom(file)
    for name in ("sealed", "fingerprint") if content else ("sealed", "fingerprint", "content"):
        copy.ClearField(name)
    return copy


def _in_file(file: objects.TaskFile) -> str:
    word = kind_word(file.kind)
    return f"{word} {file.meta.name} is in the Compose file of app {file.app}: change it there and deploy again"
