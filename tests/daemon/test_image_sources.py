"""An image's blobs from several hosts: who goes on where one breaks off, and what is kept to while they send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import pytest
import trio
import trio.testing

from daemon.agent import image_sources
from daemon.agent.host_view import HostView
from daemon.agent.image_sources import ImageSources
from daemon.peers import Peers
from daemon.pulling.blob_sending import Bandwidth
from proto import grpc_trio
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from runtime.errors import Unavailable
from runtime.image_model import Blob

MANIFEST = "sha256:manifest"
WHOLE = b"0123456789"


class Host:
    """What another host answers: `breaks_at` bytes of a blob, `busy` refusals, or an earlier version's words."""

    def __init__(self, held: set[str], breaks_at: int = 100, busy: int = 0, older: bool = False) -> None:
        self.held = held
        self.breaks_at = breaks_at
        self.busy = busy
        self.older = older
        self.asked: list[tuple[str, int]] = []

    async def FindBlobs(self, request: host.FindBlobsRequest, timeout: float) -> host.FindBlobsReply:
        if self.older:
            raise failure(grpc.StatusCode.UNIMPLEMENTED)
        return host.FindBlobsReply(held=self.held & set(request.digests))

    def ReadBlob(self, request: host.ReadBlobRequest) -> Stream:
        self.asked.append((request.digest, request.offset_bytes))
        if self.busy:
            self.busy -= 1
            return Stream(b"", grpc.StatusCode.RESOURCE_EXHAUSTED)
        data = WHOLE[request.offset_bytes : self.breaks_at]
        return Stream(data, grpc.StatusCode.UNAVAILABLE if self.breaks_at < len(WHOLE) else None)


class Stream:
    def __init__(self, data: bytes, then: grpc.StatusCode | None) -> None:
        self._data = data
        self._then = then

    async def read(self) -> Any:
        if self._data:
            data, self._data = self._data[:3], self._data[3:]
            return host.ReadBlobReply(data=data)
        if self._then is not None:
            raise failure(self._then)
        return grpc.aio.EOF

    def cancel(self) -> None:
        pass


def failure(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="it broke")


def sources(hosts: dict[str, Host], whole: set[str], zones: dict[str, str] | None = None) -> ImageSources:
    view = HostView()
    image = objects.Image(meta=objects.Meta(id="i"), manifest_digest=MANIFEST, node_ids=sorted(whole))
    items = [host.HostItem(key="image/i", image=image)]
    for name in ("own", *hosts):
        node = objects.Node(meta=objects.Meta(id=name, name=name), api_port=1)
        node.meta.labels["zone"] = (zones or {}).get(name, "")
        items.append(host.HostItem(key=f"node/{name}", node=node))
    view.apply(host.HostState(complete=True, put=items))

    class Known:
        def host(self, node_id: str, _address: str, _port: int) -> Host:
            return hosts[node_id]

    return ImageSources(MANIFEST, view, cast(Peers, Known()), "own")


def run(body: Callable[[], Awaitable[None]]) -> None:
    grpc_trio.run(body)


async def read(one: ImageSources, digest: str) -> bytes:
    return b"".join([data async for data in one.read(digest)])


async def ordered(one: ImageSources, *digests: str) -> list[str]:
    return [blob.digest for blob in await one.order([Blob(digest, 10, "") for digest in digests])]


def test_another_host_goes_on_where_one_breaks_off() -> None:
    async def body() -> None:
        hosts = {"a": Host(set(), breaks_at=4), "b": Host(set())}
        assert await read(sources(hosts, {"a", "b"}, {"own": "z", "a": "z"}), MANIFEST) == WHOLE
        assert (hosts["a"].asked, hosts["b"].asked) == ([(MANIFEST, 0)], [(MANIFEST, 4)])

    run(body)


def test_a_host_that_has_a_part_gives_that_part() -> None:
    async def body() -> None:
        hosts = {"whole": Host({"x", "y"}), "part": Host({"y"}), "older": Host(set(), older=True)}
        one = sources(hosts, {"whole"}, {"own": "z", "part": "z", "older": "z"})
        assert await ordered(one, "y", "x") == ["x", "y"], "the rarer one first"
        assert await read(one, "x") == await read(one, "y") == WHOLE
        assert (hosts["whole"].asked, hosts["part"].asked, hosts["older"].asked) == ([("x", 0)], [("y", 0)], [])

    run(body)


def test_hosts_of_an_earlier_version_are_asked_where_they_hold_the_whole() -> None:
    async def body() -> None:
        one = sources({"older": Host(set(), older=True)}, {"older"})
        assert sorted(await ordered(one, "x", "y")) == ["x", "y"]
        assert await read(one, "y") == WHOLE

    run(body)


def test_a_busy_host_is_waited_for_and_what_was_wrong_is_read_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "BUSY_WAIT_S", 0.01)

    async def body() -> None:
        hosts = {"a": Host(set(), busy=2)}
        assert await read(sources(hosts, {"a"}), MANIFEST) == WHOLE
        assert len(hosts["a"].asked) == 3
        hosts = {"a": Host(set()), "b": Host(set())}
        one = sources(hosts, {"a", "b"}, {"own": "z", "a": "z"})
        for _ in range(2):  # the second time since its bytes did not match
            assert await read(one, MANIFEST) == WHOLE
        assert (len(hosts["a"].asked), len(hosts["b"].asked)) == (1, 1)

    run(body)


def test_what_no_host_has_is_said() -> None:
    async def body() -> None:
        with pytest.raises(Unavailable, match="no host that is up holds it"):
            await read(sources({"a": Host(set())}, set()), MANIFEST)
        with pytest.raises(Unavailable, match="a does not send it: it broke"):
            await read(sources({"a": Host(set(), breaks_at=4)}, {"a"}), MANIFEST)

    run(body)


def test_all_that_is_sent_together_keeps_to_the_bandwidth() -> None:
    async def body() -> None:
        began = trio.current_time()
        bandwidth = Bandwidth(1_000_000)
        async with trio.open_nursery() as nursery:
            for _ in range(3):

                async def send() -> None:
                    for _ in range(10):
                        await bandwidth.passed(100_000)

                nursery.start_soon(send)
        assert trio.current_time() - began == pytest.approx(2.9)  # the last chunk may go at once
        await Bandwidth(0).passed(1 << 40)

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
