"""The whole of stored objects by kind and name, without what is secret. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from daemon import lookup
from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store


def inspect(store: Store, request: control.InspectRequest) -> control.InspectReply:
    """All objects of that kind which the name means. Raises Refused where there is none, or no such kind."""
    find = _FINDERS.get(request.kind)
    if find is None:
        kinds = ", ".join(sorted(_FINDERS))
        raise Refused(f"there is no kind {request.kind!r}; there are {kinds}")
    field, found = find(store, request.name)
    if not found:
        raise Refused(f"there is no {request.kind} {request.name!r}", Kind.NOT_FOUND)
    reply = control.InspectReply()
    getattr(reply, field).extend(found)
    for cluster in reply.clusters:
        cluster.ca_private_key_sealed = b""
    for file in reply.files:
        file.sealed = b""
    return reply


Found = tuple[str, Sequence[Message]]
Finder = Callable[[Store, str], Found]


def _app(store: Store, name: str) -> Found:
    return "apps", [lookup.find_app(store, name)]


def _service(store: Store, name: str) -> Found:
    return "services", lookup.find_services(store, name) if name else []


def _task(store: Store, name: str) -> Found:
    return "tasks", lookup.find_tasks(store, name)


def _node(store: Store, name: str) -> Found:
    return "nodes", [lookup.find_node(store, name)]


def _cluster(store: Store, name: str) -> Found:
    return "clusters", [each for each in store.table(objects.Cluster) if name in ("", each.meta.name, each.meta.id)]


def _image(store: Store, name: str) -> Found:
    def means(image: objects.Image) -> bool:
        familiar = image.meta.name.removeprefix("docker.io/").removeprefix("library/")
        return name in (image.meta.id, image.meta.name, image.manifest_digest, familiar)

    return "images", [image for image in store.table(objects.Image) if means(image)]


def _file(kind: objects.FileKind.ValueType) -> Finder:
    def find(store: Store, name: str) -> Found:
        found = [each for each in store.table(objects.TaskFile) if each.kind == kind and _named(each, "", name)]
        return "files", sorted(found, key=lambda file: file.version)

    return find


def _of_app(field: str, message: type[objects.Network] | type[objects.Volume]) -> Finder:
    def find(store: Store, name: str) -> Found:
        return field, [each for each in store.table(message) if _named(each, each.app, name)]

    return find


def _policy(store: Store, name: str) -> Found:
    return "policies", [policy for policy in store.table(objects.Policy) if _named(policy, "", name)]


def _named(stored: objects.Network | objects.Volume | objects.TaskFile | objects.Policy, app: str, name: str) -> bool:
    """By NAME, by APP/NAME where it belongs to an app, or by id."""
    return name in (stored.meta.id, stored.meta.name) or (bool(app) and name == f"{app}/{stored.meta.name}")


_FINDERS: dict[str, Finder] = {
    "app": _app,
    "service": _service,
    "task": _task,
    "node": _node,
    "cluster": _cluster,
    "image": _image,
    "secret": _file(objects.FILE_KIND_SECRET),
    "config": _file(objects.FILE_KIND_CONFIG),
    "network": _of_app("networks", objects.Network),
    "volume": _of_app("volumes", objects.Volume),
    "policy": _policy,
}
