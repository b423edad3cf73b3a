"""Pulls images on the host that leads; the other hosts fetch them from it and from each other, so that a registry is
read once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from daemon.api.cluster_context import VoterContext
from daemon.errors import Kind, Refused
from daemon.identity.registry_sealing import opened_password
from daemon.leader.leadership import now_unix_ms
from daemon.orchestration.image_lookup import find_image
from daemon.pulling import registry_plan
from daemon.pulling.image_plan import Arrived, plan_arrival
from daemon.runtime_failures import refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from runtime.errors import InvalidRequest, RuntimeFailure
from runtime.image_model import Blob, host_architecture
from runtime.images import ImageStore
from runtime.references import normalise_reference
from runtime.registry.address import Endpoint, ImageName, Source, parse_name

if TYPE_CHECKING:
    from runtime.registry.pull import Puller

logger = logging.getLogger(__name__)

PULLS_AT_ONCE_MAX = 2  # they share the link and the disk
PULLS_WAITING_MAX = 100
PULL_S_MAX = 4 * 3600.0


@dataclass
class Progress:
    """How far a pull has come; layers in the order of the image, known once its manifest is."""

    layers: list[control.LayerProgress] = field(default_factory=list)
    by_digest: dict[str, control.LayerProgress] = field(default_factory=dict)

    def begin(self, layers: tuple[Blob, ...]) -> None:
        for layer in layers:
            entry = control.LayerProgress(digest=layer.digest, size_bytes=layer.size_bytes)
            self.by_digest.setdefault(layer.digest, entry)
        self.layers = list(self.by_digest.values())

    def note(self, layer: Blob, done_bytes: int, here: bool) -> None:
        entry = self.by_digest.get(layer.digest)
        if entry is not None:
            entry.done_bytes, entry.here = done_bytes, here


class ImagePulls:
    """Lives as long as the host is in the cluster; pulls only while it leads."""

    def __init__(self, context: VoterContext, images: ImageStore, arrived: Callable[[], None]) -> None:
        self._context = context
        self._images = images
        self._arrived = arrived
        self._locks: dict[str, trio.Lock] = {}  # name -> held while it is pulled
        self._slots = trio.Semaphore(PULLS_AT_ONCE_MAX)

    async def pull(self, text: str, refresh: bool, actor: str, progress: Progress) -> tuple[objects.Image, bool]:
        """The image as the cluster has it now, and whether it was there already. Without `refresh` nobody is asked
        where the cluster has one of the name. Raises Refused."""
        try:
            name, parts = normalise_reference(text), parse_name(text)
        except InvalidRequest as error:
            raise Refused(str(error)) from error
        async with self._alone(name):
            known = self._known(name)
            if known is not None and not refresh:
                return known, True
            try:
                with trio.fail_after(PULL_S_MAX):
                    return await self._pull(name, parts, known, actor, progress)
            except RuntimeFailure as error:
                raise refused(error) from error
            except trio.TooSlowError:
                raise Refused(f"image {text} took longer than {PULL_S_MAX / 3600:g} hours", Kind.UNAVAILABLE) from None

    async def check(self, endpoint: Endpoint) -> None:
        """That a registry lets its user in. Raises Refused."""
        from runtime.registry.client import RegistryClient  # see _pull

        try:
            async with RegistryClient.opened(endpoint) as client:
                await client.check()
        except RuntimeFailure as error:
            raise refused(error) from error

    async def _pull(
        self, name: str, parts: ImageName, known: objects.Image | None, actor: str, progress: Progress
    ) -> tuple[objects.Image, bool]:
        # Some MiB of memory that only a host which pulls pays for.
        from runtime.registry.pull import Puller

        sources = registry_plan.sources(
            self._context.store, parts, lambda registry: opened_password(self._context.identity, registry)
        )
        async with self._slots, Puller() as puller:
            if known is not None and known.node_ids:
                digest = parts.reference if parts.by_digest else await self._digest_now(puller, sources[-1], parts)
                if digest in (known.index_digest or known.manifest_digest, known.manifest_digest):
                    return known, True  # held by a host, and the question costs no pull
            resolved = await puller.resolve(name, parts.reference, sources, host_architecture())
            progress.begin(resolved.manifest.layers)
            logger.info("pulling image %s (%s)", name, resolved.digest)
            pulled = await puller.fetch(self._images, resolved, progress.note)
        arrived = Arrived(pulled.image, pulled.digest, now_unix_ms())
        node_id = self._context.identity.node_id
        images, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: plan_arrival(store, [arrived], node_id, new_id), actor
        )
        self._arrived()
        return self._context.store.get(objects.Image, images[0].meta.id) or images[0], False

    async def _digest_now(self, puller: Puller, source: Source, parts: ImageName) -> str:
        try:
            return await puller.digest_now(source, parts.reference)
        except RuntimeFailure:  # a mirror may have it all the same
            return ""

    def _known(self, name: str) -> objects.Image | None:
        return find_image(self._context.store, name)

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One pull of a name at a time: who comes second finds it done."""
        lock = self._locks.setdefault(name, trio.Lock())
        if lock.statistics().tasks_waiting >= PULLS_WAITING_MAX:
            raise Refused(f"{PULLS_WAITING_MAX} others wait for image {name} already", Kind.EXHAUSTED)
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and lock.statistics().tasks_waiting == 0:
                self._locks.pop(name, None)
