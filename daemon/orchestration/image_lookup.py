"""Which image of the cluster a service means. Pure."""

from __future__ import annotations

from proto import objects_pb2 as objects
from raft.store import Store
from runtime.errors import InvalidRequest
from runtime.references import normalise_reference


def find_image(store: Store, reference: str) -> objects.Image | None:
    """The image that a name (redis, redis:7, registry.example/team/app@sha256:...) stands for now; None
    where the cluster has none such, or the name is no name of an image."""
    try:
        name = normalise_reference(reference)
    except InvalidRequest:
        return None
    _, at, digest = name.partition("@")
    images = store.table(objects.Image)
    if not at:
        return images.unique("name", name)
    # A registry may have it by the digest of an index, of which the cluster holds one platform's manifest.
    return image_of_digest(store, digest) or next((image for image in images if image.index_digest == digest), None)


def image_of_digest(store: Store, manifest_digest: str) -> objects.Image | None:
    return next(iter(store.table(objects.Image).by("manifest", manifest_digest)), None)


def on_its_way(store: Store, service: objects.Service, node_id: str) -> bool:
    """A host does not hold yet what the service's next task there is made of, and others do, of whom it fetches it."""
    digests = {service.image_digest, *(init.image_digest for init in service.spec.container.init_tasks)} - {""}
    for digest in digests:
        images = store.table(objects.Image).by("manifest", digest)
        if any(image.node_ids for image in images) and not any(node_id in image.node_ids for image in images):
            return True
    return False


def missing_image(reference: str) -> str:
    """What is said of a task whose image the cluster does not have."""
    return (
        f"image {reference} is not in the cluster: pull it with `fairway image pull {reference}`, or load it with "
        "`fairway image load FILE`"
    )


def replaced_image(reference: str) -> str:
    """What is said of a task made for content that the image's name does not stand for any more."""
    return (
        f"image {reference} has other content in the cluster now than when this was deployed: deploy again to "
        "use it, or load the earlier one with `fairway image load FILE`"
    )
