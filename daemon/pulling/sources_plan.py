"""Which hosts to ask for the blobs of an image, and in which order: nearest first, and of the image the rarest blob
first, so that hosts which fetch it at the same time soon have something for each other. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from proto import objects_pb2 as objects

HOLDERS_ASKED_MAX = 8
OTHERS_ASKED_MAX = 8  # that fetch it as well, perhaps
ZONE_LABEL = "zone"


def asked(nodes: Iterable[objects.Node], holders: Collection[str], own_id: str) -> list[objects.Node]:
    """Hosts to ask, nearest first: some that hold the whole image, and some that may hold a part of it by now. Those
    that are down come last, and only where they hold it."""
    own = next((node for node in nodes if node.meta.id == own_id), objects.Node())
    others = [node for node in nodes if node.meta.id != own_id and node.api_port]
    others.sort(key=lambda node: (_down(node), not near(own, node), draw(own_id, node.meta.id)))
    whole = [node for node in others if node.meta.id in holders]
    part = [node for node in others if node.meta.id not in holders and not _down(node)]
    return [*whole[:HOLDERS_ASKED_MAX], *part[:OTHERS_ASKED_MAX]]


def near(own: objects.Node, other: objects.Node) -> bool:
    """In one zone; a host without the label is near none."""
    zone = own.meta.labels.get(ZONE_LABEL, "")
    return bool(zone) and other.meta.labels.get(ZONE_LABEL, "") == zone


def choose(
    sources: Sequence[str],
    nearby: Set[str],
    sending: Mapping[str, int],
    doubted: Set[str],
) -> str | None:
    """The source to read from, of those that have the blob: near ones first, and of these the one that sends least.
    `doubted` have sent something wrong already."""
    if not sources:
        return None
    place = {source: number for number, source in enumerate(sources)}
    return min(sources, key=lambda each: (each in doubted, each not in nearby, sending.get(each, 0), place[each]))


def rarest_first(digests: Iterable[str], held: Mapping[str, Collection[str]], own_id: str) -> Iterator[str]:
    """Each digest once; `held` (host -> what it has) may change meanwhile. What is equally rare comes in an order of
    this host's own."""
    left = set(digests)
    while left:
        counts = {digest: sum(digest in each for each in held.values()) for digest in left}
        rarest = min(left, key=lambda digest: (counts[digest], draw(own_id, digest)))
        left.discard(rarest)
        yield rarest


def images_in_turn(images: Iterable[objects.Image]) -> list[objects.Image]:
    """The images that the fewest hosts hold come first, and small ones before large ones."""
    return sorted(images, key=lambda image: (len(image.node_ids), image.size_bytes, image.meta.id))


def draw(own_id: str, other: str) -> bytes:
    """A number that is each host's own, so that hosts do not all begin with the same."""
    return hashlib.sha256(f"{own_id} {other}".encode()).digest()


def _down(node: objects.Node) -> bool:
    return node.state == objects.NODE_STATE_DOWN
