"""containerd's content store: blobs by digest, written under a lease and verified."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, BinaryIO

import trio

from proto import containerd_pb2 as api
from runtime import image_model
from runtime.connection import Connection
from runtime.content_files import SIZE_BYTES_MIN, ContentFiles
from runtime.errors import AlreadyExists, InvalidImage, NoSpace, NotFound, NotPossible, RuntimeFailure
from runtime.image_model import Blob

CHUNK_BYTES_MAX = 256 * 1024  # of one message; measured: a third faster than 1 MiB
READ_AHEAD_MAX = 8  # chunks of the source that are held while containerd writes
FILE_CHUNK_BYTES = 1 << 20  # of one read or write
ABORT_WAIT_MS = 5_000
Exchange = Callable[[api.WriteContentRequest], Awaitable[api.WriteContentResponse]]
_METHOD = "content.v1.Content/Write"
_WRITE = api.WriteContentRequest.Action.WRITE
_COMMIT = api.WriteContentRequest.Action.COMMIT


class ContentStore:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._files = ContentFiles(connection)

    async def has(self, digest: str) -> bool:
        request = api.ContentInfoRequest(digest=digest)
        try:
            await self._connection.unary("content.v1.Content/Info", request, api.ContentInfoResponse)
        except NotFound:
            return False
        return True

    async def read(self, digest: str, offset_bytes: int = 0) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from an offset; raises NotFound."""
        file = await self._files.opened(digest)
        if file is not None and await self.has(digest):  # in our namespace as well
            with file:
                file.seek(offset_bytes)
                while data := await trio.to_thread.run_sync(file.read, FILE_CHUNK_BYTES):
                    yield data
            return
        request = api.ReadContentRequest(digest=digest, offset=offset_bytes)
        async for reply in self._connection.read("content.v1.Content/Read", request, api.ReadContentResponse):
            yield reply.data

    async def read_document(self, digest: str) -> bytes:
        """A small blob as a whole."""
        data = b""
        async with contextlib.aclosing(self.read(digest)) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > image_model.DOCUMENT_BYTES_MAX:
                    raise InvalidImage(f"blob {digest} is larger than a document may be")
        return data

    async def write(
        self,
        blob: Blob,
        chunks: AsyncGenerator[bytes, None],
        lease: str,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Stores a blob unless it is there; raises InvalidImage where the bytes do not match it, NoSpace."""
        reference = _reference(blob)
        try:
            async with contextlib.aclosing(chunks):
                file = await self._begin(reference, blob, lease)
                if file is not None:
                    await self._write_file(file, reference, blob, chunks, lease, labels or {})
                else:
                    await self._write(reference, blob, chunks, lease, labels or {})
        except AlreadyExists:
            return  # containerd has put what is there under the lease
        except BaseException:
            with trio.move_on_after(ABORT_WAIT_MS / 1000, shield=True):
                await self._abort(reference)
            raise

    async def held(self, blob: Blob, lease: str) -> bool:
        """True where the blob is there already; it is then under the lease too."""
        reference = _reference(blob)
        try:
            await self._open(reference, blob, lease)
        except AlreadyExists:
            return True
        await self._abort(reference)
        return False

    async def _open(self, reference: str, blob: Blob, lease: str) -> None:
        request = api.WriteContentRequest(ref=reference, total=blob.size_bytes, expected=blob.digest)
        async with self._connection.exchange(_METHOD, api.WriteContentResponse, lease=lease) as send:
            await send(request)

    async def _begin(self, reference: str, blob: Blob, lease: str) -> BinaryIO | None:
        """The file of a write, begun; None where it is to go by gRPC."""
        if blob.size_bytes < SIZE_BYTES_MIN:
            return None
        await self._open(reference, blob, lease)
        return await self._files.begun(reference)

    async def _abort(self, reference: str) -> None:
        # Where it fails nothing was begun, or the lease's end removes it.
        with contextlib.suppress(RuntimeFailure):
            await self._connection.do("content.v1.Content/Abort", api.AbortContentRequest(ref=reference))

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Sets these labels and leaves others as they are."""
        request = api.UpdateContentRequest(info=api.ContentInfo(digest=digest, labels=labels))
        request.update_mask.paths.extend(f"labels.{name}" for name in labels)
        await self._connection.do("content.v1.Content/Update", request)

    async def _write_file(
        self,
        file: BinaryIO,
        reference: str,
        blob: Blob,
        chunks: AsyncIterator[bytes],
        lease: str,
        labels: Mapping[str, str],
    ) -> None:
        """As `_write`; containerd reads and verifies what is in the file when it commits it."""
        offset, gathered, gathered_bytes = 0, list[bytes](), 0
        with file:
            async with _read_ahead(chunks) as ahead:
                async for chunk in ahead:
                    offset += len(chunk)
                    _check_size(blob, offset)
                    gathered.append(chunk)
                    gathered_bytes += len(chunk)
                    if gathered_bytes >= FILE_CHUNK_BYTES:
                        await trio.to_thread.run_sync(_append, file, gathered)
                        gathered, gathered_bytes = [], 0
            await trio.to_thread.run_sync(_append, file, gathered)
        _check_size(blob, offset, whole=True)
        async with self._connection.exchange(_METHOD, api.WriteContentResponse, lease=lease) as send:
            await self._commit(send, reference, blob, labels)

    async def _write(
        self, reference: str, blob: Blob, chunks: AsyncIterator[bytes], lease: str, labels: Mapping[str, str]
    ) -> None:
        offset = 0
        fields: dict[str, Any] = {"ref": reference, "total": blob.size_bytes, "expected": blob.digest}
        async with (
            self._connection.exchange(_METHOD, api.WriteContentResponse, lease=lease) as send,
            _read_ahead(chunks) as ahead,
        ):
            async for chunk in ahead:
                _check_size(blob, offset + len(chunk))
                view = memoryview(chunk)
                for start in range(0, len(chunk), CHUNK_BYTES_MAX):
                    data = bytes(view[start : start + CHUNK_BYTES_MAX])
                    # In lockstep: grpc.aio forgets why a stream ended where a write meets its end.
                    await send(api.WriteContentRequest(action=_WRITE, offset=offset, data=data, **fields))
                    offset += len(data)
            _check_size(blob, offset, whole=True)
            await self._commit(send, reference, blob, labels)

    async def _commit(self, send: Exchange, reference: str, blob: Blob, labels: Mapping[str, str]) -> None:
        size_bytes = blob.size_bytes
        request = api.WriteContentRequest(
            action=_COMMIT, ref=reference, total=size_bytes, expected=blob.digest, offset=size_bytes, labels=labels
        )
        try:
            await send(request)
        except NotPossible as error:
            raise InvalidImage(f"blob {blob.digest} does not match its digest ({error})") from None


def _append(file: BinaryIO, chunks: list[bytes]) -> None:
    try:
        for chunk in chunks:
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        words = f"containerd's content cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"the disk is full: {words}") from error
        raise RuntimeFailure(words) from error


def _check_size(blob: Blob, come_bytes: int, whole: bool = False) -> None:
    if come_bytes > blob.size_bytes:
        raise InvalidImage(f"blob {blob.digest} has more than {blob.size_bytes} bytes")
    if whole and come_bytes != blob.size_bytes:
        raise InvalidImage(f"blob {blob.digest} has {come_bytes} bytes instead of {blob.size_bytes}")


class _Ahead:
    """Chunks that another task fetches; its error comes after what it fetched before."""

    def __init__(self) -> None:
        self.sending, self.receiving = trio.open_memory_channel[bytes](READ_AHEAD_MAX)
        self.failure: Exception | None = None

    async def fetch(self, chunks: AsyncIterator[bytes]) -> None:
        async with self.sending:
            try:
                async for chunk in chunks:
                    await self.sending.send(chunk)
            except Exception as error:
                self.failure = error

    def __aiter__(self) -> _Ahead:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receiving.receive()
        except trio.EndOfChannel:
            if self.failure is not None:
                raise self.failure from None
            raise StopAsyncIteration from None


@contextlib.asynccontextmanager
async def _read_ahead(chunks: AsyncIterator[bytes]) -> AsyncIterator[_Ahead]:
    """The same chunks, of which the next are fetched while one is used; errors of either side pass unchanged."""
    ahead = _Ahead()
    own: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ahead.fetch, chunks)
        try:
            yield ahead
        except Exception as error:
            own = error
        nursery.cancel_scope.cancel()
    if own is not None:
        raise own


def _reference(blob: Blob) -> str:
    """Of one attempt to write: two at a time do not meet."""
    return f"fairway-{random.getrandbits(64):016x}-{blob.digest}"
