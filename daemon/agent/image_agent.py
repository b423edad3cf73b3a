"""Keeps the cluster's images on this host: fetches what it lacks from hosts that hold it, drops what is gone.

Every image of the cluster is wanted on every host, so that a task can start anywhere without waiting; one that
a task needs now goes first.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import trio

from daemon.agent.host_view import HostView
from daemon.agent.reports import Reports
from daemon.agent.task_runner import TaskFailure
from daemon.errors import Kind, Refused
from daemon.peers import Peers
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2 import ReadBlobRequest
from runtime.errors import RuntimeFailure
from runtime.images import ImageStore

logger = logging.getLogger(__name__)

RETRY_S_MIN = 0.5
RETRY_S_MAX = 30.0
ENSURE_TRIES_MAX = 3
UNKNOWN_KEPT_S = 60.0  # before an image that the cluster does not have is removed
LOOK_INTERVAL_S = 30.0


class ImageAgent:
    """Observes containerd's images and the view, fetches and removes one image at a time."""

    def __init__(self, images: ImageStore, view: HostView, peers: Peers, reports: Reports, node_id: str) -> None:
        self._images = images
        self._view = view
        self._peers = peers
        self._reports = reports
        self._node_id = node_id
        self._ensuring: dict[str, trio.Lock] = {}  # one for each image that was ever needed here
        self._ready: set[str] = set()  # unpacked here, as far as is known
        self._unknown_since_s: dict[str, float] = {}
        self._wake = trio.Event()
        self._fetching = trio.Lock()  # one image at a time: they share the link and the disk

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
        """Whether all images of the cluster are here now."""
        await self._report()
        complete = True
        for image in self._view.images:
            try:
                await self._fetch(image)
            except (RuntimeFailure, Refused) as error:
                logger.warning("image %s: %s", image.meta.name, error)
                complete = False
        if self._view.complete:
            await self._remove_unknown()
        return complete

    async def _report(self) -> None:
        held = sorted({image.manifest_digest for image in await self._images.list()})
        self._reports.images(held)

    async def _remove_unknown(self) -> None:
        wanted = {image.manifest_digest for image in self._view.images}
        wanted |= {task.image_digest for task in self._view.tasks}
        wanted |= {init.image_digest for task in self._view.tasks for init in task.spec.container.init_tasks}
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
                    await self._fetch(image)
                await self._images.unpack(digest)
                self._ready.add(digest)
                return
            except (RuntimeFailure, Refused) as error:
                failure = str(error)
        raise TaskFailure(f"image {name} cannot be had: {failure}")

    def doubt(self, digest: str) -> None:
        """Something of an image that was here is not: the next `ensure` looks again."""
        self._ready.discard(digest)

    async def _fetch(self, image: objects.Image) -> None:
        async with self._fetching:
            if await self._images.has(image.manifest_digest):
                return
            holders = [node_id for node_id in image.node_ids if node_id != self._node_id]
            if not holders:
                raise Refused("no host that is up holds it; load it again", Kind.NOT_POSSIBLE)
            error: Exception = Refused("no holder is known")
            for holder in holders:
                try:
                    await self._images.import_blobs(image.meta.name, image.manifest_digest, self._reader(holder))
                    await self._report()
                    logger.info("image %s fetched from %s", image.meta.name, holder)
                    return
                except (RuntimeFailure, Refused) as failure:
                    error = failure
            raise error

    def _reader(self, node_id: str) -> Callable[[str], AsyncIterator[bytes]]:
        async def read(digest: str) -> AsyncIterator[bytes]:
            node = self._view.node(node_id)
            if node is None:
                raise Refused("its host is not in the cluster any more", Kind.UNAVAILABLE)
            stub = self._peers.host(node_id, node.address, node.api_port)
            stream: Any = stub.ReadBlob(ReadBlobRequest(digest=digest))
            try:
                while (reply := await call(stream.read())) is not grpc.aio.EOF:
                    yield reply.data
            except (grpc.aio.AioRpcError, ConnectionAbortedError) as error:
                words = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                raise Refused(f"{node.meta.name} does not send it: {words}", Kind.UNAVAILABLE) from error
            finally:
                stream.cancel()

        return read
