"""The cluster's images as operators change them: loaded, pulled, named anew, removed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from daemon.errors import Kind, Refused
from daemon.orchestration.image_lookup import find_image
from daemon.orchestration.task_states import gone
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder
from runtime.errors import InvalidRequest
from runtime.model import LoadedImage
from runtime.references import normalise_reference, with_digest

DIGEST_PREFIX_MIN = 4  # characters by which an image may be named


@dataclass(frozen=True)
class Arrived:
    """An image that the leader holds now."""

    image: LoadedImage
    index_digest: str = ""  # that its registry has it by
    pulled_unix_ms: int = 0


def plan_arrival(
    store: Store, arrived: Iterable[Arrived], node_id: str, new_id: Callable[[], str]
) -> tuple[TransactionBuilder, list[objects.Image]]:
    """The images as the cluster's. Where a name gets other content, the earlier content stays as NAME@DIGEST while a
    service, one of its revisions or a task is made of it."""
    builder, stored = TransactionBuilder(), []
    for each in arrived:
        image = each.image
        known = store.table(objects.Image).unique("name", image.name)
        wanted = objects.Image()
        if known is not None:
            wanted.CopyFrom(known)
            if known.manifest_digest != image.manifest_digest:
                _keep_earlier(store, builder, known, new_id)
        else:
            wanted.meta.id, wanted.meta.name, wanted.meta.format = new_id(), image.name, 1
        holders = list(wanted.node_ids) if wanted.manifest_digest == image.manifest_digest else []
        if node_id not in holders:
            holders.append(node_id)
        wanted.manifest_digest, wanted.config_digest = image.manifest_digest, image.config_digest
        wanted.architecture, wanted.operating_system = image.architecture, image.operating_system
        wanted.size_bytes = image.size_bytes
        wanted.node_ids[:] = holders
        wanted.index_digest = each.index_digest if each.index_digest != image.manifest_digest else ""
        wanted.pulled_unix_ms = each.pulled_unix_ms
        if known is None:
            builder.create(wanted)
        elif wanted != known:
            builder.update(wanted)
        stored.append(wanted)
    return builder, stored


def _keep_earlier(store: Store, builder: TransactionBuilder, known: objects.Image, new_id: Callable[[], str]) -> None:
    digest = known.manifest_digest
    others = [image for image in store.table(objects.Image).by("manifest", digest) if image.meta.id != known.meta.id]
    if others or digest not in digests_in_use(store):
        return
    kept = objects.Image()
    kept.CopyFrom(known)
    kept.ClearField("meta")
    kept.meta.id, kept.meta.name, kept.meta.format = new_id(), with_digest(known.meta.name, digest), 1
    builder.create(kept)


def digests_in_use(store: Store) -> set[str]:
    """Manifest digests that services, their earlier revisions and tasks are made of."""
    found: set[str] = set()
    for task in store.table(objects.Task):
        if not gone(task) or task.status.state < objects.TASK_STATE_EXITED:
            found |= {task.image_digest, *_init_digests(task.spec)}
    for service in store.table(objects.Service):
        found |= {service.image_digest, *_init_digests(service.spec)}
        for revision in service.revisions:
            found |= {revision.image_digest, *_init_digests(revision.spec)}
    return found - {""}


def _init_digests(spec: objects.ServiceSpec) -> set[str]:
    return {init.image_digest for init in spec.container.init_tasks}


def users_of(store: Store, image: objects.Image) -> list[str]:
    """APP/SERVICE that are made of it now."""
    return sorted(
        {
            f"{service.app}/{service.meta.name}"
            for service in store.table(objects.Service)
            if service.image_digest == image.manifest_digest and not service.removing
        }
    )


def matching(store: Store, text: str) -> list[objects.Image]:
    """The images that a name, a digest or the beginning of one stands for. Raises Refused where there is none."""
    try:
        name = normalise_reference(text)
    except InvalidRequest:
        name = text
    images = list(store.table(objects.Image))
    found = [image for image in images if image.meta.name in (text, name)]
    _, at, digest = name.partition("@")
    if not found and at:
        found = [image for image in images if digest in (image.manifest_digest, image.index_digest)]
    if not found and not at and len(text) >= DIGEST_PREFIX_MIN:
        prefix = f"sha256:{text.removeprefix('sha256:')}"
        found = [image for image in images if image.manifest_digest.startswith(prefix)]
    if not found:
        raise Refused(f"there is no image {text!r}; `fairway image ls` lists them", Kind.NOT_FOUND)
    return found


def one_matching(store: Store, text: str) -> objects.Image:
    """Raises Refused where there is none, or names of different content."""
    images = matching(store, text)
    if len({image.manifest_digest for image in images}) > 1:
        names = ", ".join(sorted(image.meta.name for image in images))
        raise Refused(f"{text!r} may be any of {names}: say which", Kind.CONFLICT)
    return images[0]


def plan_tag(
    store: Store, request: control.TagImageRequest, new_id: Callable[[], str]
) -> tuple[TransactionBuilder, objects.Image]:
    """A further name for an image. Raises Refused."""
    image = one_matching(store, request.image)
    try:
        name = normalise_reference(request.name)
    except InvalidRequest as error:
        raise Refused(str(error)) from error
    if "@" in name:
        raise Refused(f"{request.name!r} is no tag: a digest says what an image is, and cannot be chosen")
    known = store.table(objects.Image).unique("name", name)
    builder = TransactionBuilder()
    after = objects.Image()
    after.CopyFrom(image)
    if known is not None:
        after.meta.CopyFrom(known.meta)
        if known.manifest_digest != image.manifest_digest:
            _keep_earlier(store, builder, known, new_id)
        if after != known:
            builder.update(after)
        return builder, after
    after.ClearField("meta")
    after.meta.id, after.meta.name, after.meta.format = new_id(), name, 1
    return builder.create(after), after


def plan_removal(store: Store, request: control.RemoveImageRequest) -> tuple[TransactionBuilder, list[str]]:
    """Raises Refused."""
    builder, removed = TransactionBuilder(), matching(store, request.image)
    going = {image.meta.id for image in removed}
    for image in removed:
        others = store.table(objects.Image).by("manifest", image.manifest_digest)
        users = users_of(store, image)
        if users and not request.force and all(other.meta.id in going for other in others):
            raise Refused(
                f"image {image.meta.name} is used by {', '.join(users)}; remove these first, or use --force",
                Kind.NOT_POSSIBLE,
            )
        builder.delete(image)
    return builder, [image.meta.name for image in removed]


def plan_prune(
    store: Store, request: control.PruneImagesRequest, now_unix_ms: int
) -> tuple[TransactionBuilder, control.PruneImagesReply]:
    """Removes what nothing needs and came a while ago."""
    builder, reply = TransactionBuilder(), control.PruneImagesReply()
    sizes: dict[str, int] = {}
    for image in sorted(unneeded(store), key=lambda image: image.meta.name):
        came_unix_ms = max(image.meta.created_unix_ms, image.pulled_unix_ms)
        if now_unix_ms - came_unix_ms < request.unused_ms:
            continue
        reply.removed.append(image.meta.name)
        sizes[image.manifest_digest] = image.size_bytes
        if not request.plan_only:
            builder.delete(image)
    reply.size_bytes = sum(sizes.values())
    return builder, reply


def unneeded(store: Store) -> list[objects.Image]:
    """What no service, revision or task is made of, and no service names."""
    used = digests_in_use(store)
    named = {
        name
        for service in store.table(objects.Service)
        if not service.removing
        for name in (service.spec.container.image, *(init.image for init in service.spec.container.init_tasks))
        if name
    }
    wanted = {image.meta.id for image in (find_image(store, name) for name in named) if image is not None}
    images = store.table(objects.Image)
    return [image for image in images if image.manifest_digest not in used and image.meta.id not in wanted]
