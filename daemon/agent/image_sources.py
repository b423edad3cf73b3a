"""The hosts that an image is fetched from: who has which of its blobs, and one blob's bytes from whoever has it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import grpc
import trio

from daemon.agent.host_view import HostView
from daemon.peers import Peers
from daemon.pulling import sources_plan
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from runtime.errors import Unavailable
from runtime.image_model import Blob

ASK_S_MAX = 2.0
ASK_AGAIN_S = 1.0  # other hosts get blobs all the time while they fetch the same image
SILENCE_S_MAX = 15.0  # of a host that should send; it may be held up by its bandwidth
BUSY_S_MAX = 1800.0  # while all that have a blob are busy with sending
BUSY_WAIT_S = 0.5


class _Busy(Exception):
    pass


class ImageSources:
    """Of one image, for one try to fetch it."""

    def __init__(self, manifest_digest: str, view: HostView, peers: Peers, own_id: str) -> None:
        self._manifest_digest = manifest_digest
        self._view = view
        self._peers = peers
        self._own_id = own_id
        self._layers: list[str] = []
        self._held: dict[str, set[str]] = {}  # of hosts that answered: layers that they have
        self._sending: dict[str, int] = {}
        self._silent: set[str] = set()  # did not answer when they were last asked
        self._reading: Counter[str] = Counter()
        self._asked_s = -ASK_AGAIN_S
        self._asking = trio.Lock()
        self._read_from: dict[str, set[str]] = {}  # blob -> who has sent all of it: where it is read again it was wrong

    @property
    def holders(self) -> set[str]:
        """Other hosts that the leader says have the whole image."""
        images = (image for image in self._view.images if image.manifest_digest == self._manifest_digest)
        return {node_id for image in images for node_id in image.node_ids} - {self._own_id}

    async def order(self, layers: Sequence[Blob]) -> Iterator[Blob]:
        """Rarest first, by what the other hosts have when the next one is begun."""
        blobs = {layer.digest: layer for layer in layers}
        self._layers = list(blobs)
        await self._ask()
        return (blobs[digest] for digest in sources_plan.rarest_first(blobs, self._held, self._own_id))

    async def read(self, digest: str) -> AsyncGenerator[bytes, None]:
        """A blob's bytes; where a host breaks off another one goes on. Whoever takes them verifies them. Raises
        Unavailable."""
        offset = 0
        failures: dict[str, str] = {}
        busy: set[str] = set()
        busy_until_s = trio.current_time() + BUSY_S_MAX
        while True:
            source = await self._source(digest, failures.keys() | busy)
            if source is None and busy and trio.current_time() < busy_until_s:
                await trio.sleep(BUSY_WAIT_S)
                busy.clear()
                continue
            if source is None:
                raise Unavailable(_words(failures, busy))
            try:
                async with contextlib.aclosing(self._stream(source, digest, offset)) as chunks:
                    async for data in chunks:
                        offset += len(data)
                        yield data
            except _Busy:
                busy.add(source.meta.id)
            except Unavailable as error:
                failures[source.meta.id] = str(error)
            else:
                self._read_from.setdefault(digest, set()).add(source.meta.id)
                return

    async def _source(self, digest: str, without: set[str]) -> objects.Node | None:
        await self._ask()
        nodes = sources_plan.asked(self._view.nodes, self.holders, self._own_id)
        own = self._view.node(self._own_id) or objects.Node()
        able = {node.meta.id: node for node in nodes if node.meta.id not in without and self._has(node.meta.id, digest)}
        nearby = {node_id for node_id, node in able.items() if sources_plan.near(own, node)}
        sending = {node_id: max(self._sending.get(node_id, 0), self._reading[node_id]) for node_id in able}
        chosen = sources_plan.choose(list(able), nearby, sending, self._read_from.get(digest, set()))
        return None if chosen is None else able[chosen]

    def _has(self, node_id: str, digest: str) -> bool:
        if digest in self._layers and node_id in self._held:
            return digest in self._held[node_id]
        # Its manifest and configuration, and hosts that cannot be asked for parts: as the leader says.
        return node_id in self.holders and (digest not in self._layers or node_id not in self._silent)

    async def _ask(self) -> None:
        async with self._asking:
            if not self._layers or trio.current_time() < self._asked_s + ASK_AGAIN_S:
                return
            async with trio.open_nursery() as nursery:
                for node in sources_plan.asked(self._view.nodes, self.holders, self._own_id):
                    nursery.start_soon(self._ask_one, node)
            self._asked_s = trio.current_time()

    async def _ask_one(self, node: objects.Node) -> None:
        stub: Any = self._peers.host(node.meta.id, node.address, node.api_port)
        request = host.FindBlobsRequest(digests=self._layers)
        self._held.pop(node.meta.id, None)
        self._silent.discard(node.meta.id)
        try:
            reply = await call(stub.FindBlobs(request, timeout=ASK_S_MAX))
        except ConnectionAbortedError:
            self._silent.add(node.meta.id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # a host of an earlier version has all or nothing
                self._silent.add(node.meta.id)
        else:
            self._held[node.meta.id] = set(reply.held)
            self._sending[node.meta.id] = reply.sending

    async def _stream(self, node: objects.Node, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        stub: Any = self._peers.host(node.meta.id, node.address, node.api_port)
        stream: Any = stub.ReadBlob(host.ReadBlobRequest(digest=digest, offset_bytes=offset))
        self._reading[node.meta.id] += 1
        try:
            while True:
                with trio.fail_after(SILENCE_S_MAX):
                    reply = await call(stream.read())
                if reply is grpc.aio.EOF:
                    return
                yield reply.data
        except trio.TooSlowError:
            raise Unavailable(f"{node.meta.name} has sent nothing for {SILENCE_S_MAX:.0f} s") from None
        except ConnectionAbortedError as error:
            raise Unavailable(f"{node.meta.name} does not send it: {error}") from error
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise _Busy from None
            raise Unavailable(f"{node.meta.name} does not send it: {error.details()}") from error
        finally:
            self._reading[node.meta.id] -= 1
            stream.cancel()


async def holds(view: HostView, peers: Peers, node_id: str, digests: Sequence[str]) -> bool:
    """Whether another host answers that it has all of these blobs."""
    node = view.node(node_id)
    if node is None:
        return False
    stub: Any = peers.host(node_id, node.address, node.api_port)
    try:
        reply = await call(stub.FindBlobs(host.FindBlobsRequest(digests=digests), timeout=ASK_S_MAX))
    except (grpc.aio.AioRpcError, ConnectionAbortedError):
        return False
    return set(digests) <= set(reply.held)


def _words(failures: dict[str, str], busy: set[str]) -> str:
    if failures:
        return "; ".join(failures.values())
    if busy:
        return f"all hosts that hold it have been busy with sending for {BUSY_S_MAX / 60:.0f} minutes"
    return "no host that is up holds it; load or pull it again"
