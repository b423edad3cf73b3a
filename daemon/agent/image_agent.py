"""Keeps the cluster's images on this host: fetches what it lacks from hosts that hold it, drops what is gone.

Every image of the cluster is wanted on every host, so that a task can start anywhere without waiting; one that
a task needs now does not wait for others. Where the disk fills, those that no task here needs are given up
(daemon/garbage/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from daemon.agent.host_view import HostView
from daemon.agent.image_sources import ImageSources, holds
from daemon.agent.reports import Reports
from daemon.agent.task_runner import TaskFailure
from daemon.garbage.room import Room
from daemon.peers import Peers
from daemon.pulling.sources_plan import images_in_turn
from proto import objects_pb2 as objects
from runtime.errors import RuntimeFailure, Unavailable
from runtime.image_space import ImageSpaces
from runtime.images import ImageStore

logger = logging.getLogger(__name__)

RETRY_S_MIN = 0.5
RETRY_S_MAX = 30.0
ENSURE_TRIES_MAX = 3
LAYERS_AT_ONCE_MAX = 4
NEEDED_AT_ONCE_MAX = 2  # images
UNKNOWN_KEPT_S = 60.0  # before an image that the cluster does not have is removed
LOOK_INTERVAL_S = 30.0


class ImageAgent:
    """Observes containerd's images and the view, fetches and removes images."""

    def __init__(
        self,
        images: ImageStore,
        spaces: ImageSpaces,
        view: HostView,
        peers: Peers,
        reports: Reports,
        room: Room,
        node_id: str,
    ) -> None:
        self._images = images
        self._spaces = spaces
        self.room = room
        self._view = view
        self._peers = peers
        self._reports = reports
        self._node_id = node_id
        self._ensuring: dict[str, trio.Lock] = {}  # one for each image that was ever needed here
        self._ready: set[str] = set()  # unpacked here, as far as is known
        self._unknown_since_s: dict[str, float] = {}
        self._wake = trio.Event()
        self._fetching: dict[str, trio.Lock] = {}  # by digest
        self._in_advance = trio.Lock()  # one image at a time: they share the link and the disk
        self._at_once = trio.Semaphore(NEEDED_AT_ONCE_MAX)  # what tasks wait for does not queue behind those

    def changed(self) -> None:
        """The view has changed in a way that concerns images, or an image was loaded here."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        retry_s = RETRY_S_MIN
        while True:
            self._wake = trio.Event()
            try:
                complete = await self._reconcile()
            except Exception as error:
                logger.warning("images: %s", error)
                complete = False
            retry_s = RETRY_S_MIN if complete else min(2 * retry_s, RETRY_S_MAX)
            with trio.move_on_after(LOOK_INTERVAL_S if complete else retry_s):
                await self._wake.wait()

    async def _reconcile(self) -> bool:
        """Whether all images of the cluster are here now that there is room for."""
        await self._report()
        complete = True
        needed = self.needed()
        for image in images_in_turn(self._view.images):
            if image.manifest_digest not in needed and not self.room.has(image.manifest_digest, image.size_bytes):
                continue
            try:
                await self._fetch(image, self._in_advance)
            except RuntimeFailure as error:
                logger.warning("image %s: %s", image.meta.name, error)
                complete = False
        if self._view.complete:
            await self._remove_unknown()
        return complete

    async def _report(self) -> None:
        held = sorted({image.manifest_digest for image in await self._images.list()})
        self._reports.images(held)

    async def _remove_unknown(self) -> None:
        wanted = {image.manifest_digest for image in self._view.images} | self.needed()
        held = await self._images.list()
        unknown = {image.manifest_digest for image in held} - wanted
        now_s = trio.current_time()
        self._unknown_since_s = {digest: self._unknown_since_s.get(digest, now_s) for digest in unknown}
        for image in held:
            # One that was loaded here a moment ago may not be committed yet.
            if now_s - self._unknown_since_s.get(image.manifest_digest, now_s) >= UNKNOWN_KEPT_S:
                logger.info("removing image %s: the cluster has it no more", image.name)
                self.doubt(image.manifest_digest)
                await self._images.remove(image.manifest_digest)
                await self._report()

    async def ensure(self, digest: str, name: str, progress: Callable[[str], None]) -> None:
        """The image is here and unpacked when this returns. Raises TaskFailure."""
        lock = self._ensuring.setdefault(digest, trio.Lock())  # tasks of one image often come together
        async with lock:
            if digest not in self._ready:
                await self._make_ready(digest, name, progress)

    async def _make_ready(self, digest: str, name: str, progress: Callable[[str], None]) -> None:
        failure = "no host holds it"
        for _ in range(ENSURE_TRIES_MAX):
            try:
                if not await self._images.has(digest):
                    progress(f"fetching image {name}")
                    image = next((i for i in self._view.images if i.manifest_digest == digest), None)
                    if image is None:
                        break
                    await self._fetch(image, self._at_once)
                await self._images.unpack(digest)
                self._ready.add(digest)
                return
            except RuntimeFailure as error:
                failure = str(error)
        raise TaskFailure(f"image {name} cannot be had: {failure}")

    def doubt(self, digest: str) -> None:
        """Something of an image that was here is not: the next `ensure` looks again."""
        self._ready.discard(digest)

    def needed(self) -> set[str]:
        """Digests of images that tasks of this host are made of."""
        tasks = self._view.tasks
        found = {task.image_digest for task in tasks}
        return found | {init.image_digest for task in tasks for init in task.spec.container.init_tasks}

    async def pack(self, digest: str) -> bool:
        """Removes what was unpacked of an image, unless a task here needs it: then False. Raises RuntimeFailure."""
        async with self._ensuring.setdefault(digest, trio.Lock()):
            if digest in self.needed():
                return False
            self.doubt(digest)
            await self._spaces.pack(digest)
            return True

    async def give_up(self, digest: str, others: Iterable[str]) -> bool:
        """Removes an image that no task here needs, once `others`, hosts that keep it, have shown that they have all of
        it; False where one needs it or does not show it. Raises RuntimeFailure."""
        one = self._fetching.setdefault(digest, trio.Lock())
        async with self._ensuring.setdefault(digest, trio.Lock()), one:
            blobs = await self._images.blobs(digest)
            for other in others:
                if not await holds(self._view, self._peers, other, blobs):
                    logger.info("image %s stays: %s does not show that it has it", digest, other)
                    return False
            if digest in self.needed():
                return False
            self.doubt(digest)
            self.room.given_up.add(digest)
            await self._images.remove(digest)
            await self._report()
            return True

    async def _fetch(self, image: objects.Image, lane: trio.Lock | trio.Semaphore) -> None:
        """Raises RuntimeFailure."""
        digest = image.manifest_digest
        one = self._fetching.setdefault(digest, trio.Lock())  # as many as there are images
        async with lane, one:
            if await self._images.has(digest):
                return
            sources = ImageSources(digest, self._view, self._peers, self._node_id)
            if not sources.holders:
                raise Unavailable("no host that is up holds it; load or pull it again")
            began_s = trio.current_time()
            fetched = await self._images.import_blobs(
                image.meta.name,
                digest,
                sources.read,
                layers_at_once=LAYERS_AT_ONCE_MAX,
                in_turn=sources.order,
                keep_part=True,
                unpack=lane is self._at_once,
            )
            await self._report()
            taken_s = trio.current_time() - began_s
            logger.info("image %s (%d bytes) fetched in %.1f s", image.meta.name, fetched.size_bytes, taken_s)
