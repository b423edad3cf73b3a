"""Probes between two namespaces: round trips, sizes, silence, strangers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from net import probe_frame as frames
from net.namespaces import within_namespace
from net.probe_socket import PROBE_PORT, ProbeSocket
from tests.net.pair import ADDRESSES, ADDRESSES_V6, Pair, running_pair

SHORT_SECONDS = 0.3  # where no answer is expected
LONG_SECONDS = 60.0  # where one is: responder and asker are threads of a process that may be busy


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """In the other namespace a responder runs that answers the first one's addresses."""
    with running_pair() as made:
        ready, stop = threading.Event(), threading.Event()

        async def respond() -> None:
            responder = ProbeSocket(lambda: {ADDRESSES[0], ADDRESSES_V6[0]})
            async with trio.open_nursery() as nursery:
                await nursery.start(responder.run)
                ready.set()
                await trio.to_thread.run_sync(stop.wait)
                nursery.cancel_scope.cancel()

        thread = threading.Thread(target=lambda: made.within(made.other, respond))
        thread.start()
        try:
            assert ready.wait(LONG_SECONDS)
            yield made
        finally:
            stop.set()
            thread.join()


def probing(pair: Pair, work: Callable[[ProbeSocket], Awaitable[None]]) -> None:
    async def main() -> None:
        probes = ProbeSocket(set, PROBE_PORT)
        async with trio.open_nursery() as nursery:
            await nursery.start(probes.run)
            await work(probes)
            nursery.cancel_scope.cancel()

    pair.within(pair.one, main)


@pytest.mark.parametrize(("address", "header_bytes"), [(ADDRESSES[1], 28), (ADDRESSES_V6[1], 48)])
def test_what_fits_the_path_comes_back_and_what_does_not_is_none(pair: Pair, address: str, header_bytes: int) -> None:
    async def work(probes: ProbeSocket) -> None:
        fits = 1500 - header_bytes
        for size in (frames.FRAME_BYTES_MIN, 1000, fits):
            began = trio.current_time()
            rtt_seconds = await probes.probe(address, size, True, LONG_SECONDS)
            assert rtt_seconds is not None and 0 < rtt_seconds <= trio.current_time() - began, size
        assert await probes.probe(address, fits + 1, True, SHORT_SECONDS) is None
        in_fragments = await probes.probe(address, fits + 1, timeout_seconds=LONG_SECONDS)
        assert in_fragments is not None

    probing(pair, work)


@pytest.mark.parametrize(("address", "header_bytes"), [(ADDRESSES[1], 28), (ADDRESSES_V6[1], 48)])
def test_a_path_that_swallows_large_packets_answers_small_ones(pair: Pair, address: str, header_bytes: int) -> None:
    async def work(probes: ProbeSocket) -> None:
        assert await probes.probe(address, 1300 - header_bytes, True, LONG_SECONDS) is not None
        assert await probes.probe(address, 1300 - header_bytes + 1, True, SHORT_SECONDS) is None

    pair.swallow(1300)
    try:
        probing(pair, work)
    finally:
        pair.swallow(0)


def test_a_place_where_nobody_answers_is_none(pair: Pair) -> None:
    async def work(probes: ProbeSocket) -> None:
        assert await probes.probe("198.51.100.77", timeout_seconds=SHORT_SECONDS) is None
        assert await probes.probe("203.0.113.1", timeout_seconds=SHORT_SECONDS) is None  # no route
        assert await probes.probe(ADDRESSES[0], timeout_seconds=SHORT_SECONDS) is None  # itself: no host it knows

    probing(pair, work)


def test_many_probes_at_once_each_get_their_own_answer(pair: Pair) -> None:
    async def work(probes: ProbeSocket) -> None:
        answered = []

        async def one() -> None:
            answered.append(await probes.probe(ADDRESSES[1], 500, timeout_seconds=LONG_SECONDS))

        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(one)
        assert len(answered) == 300 and None not in answered

    probing(pair, work)


@pytest.mark.parametrize(
    "data",
    [b"", b"FWP1", bytes(range(64)), frames.answer(bytes(16)), b"FWP2" + frames.request(bytes(16), 24)[4:]],
)
def test_what_is_no_request_gets_no_answer(pair: Pair, data: bytes) -> None:
    with within_namespace(pair.one, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
        asker.settimeout(LONG_SECONDS)
        for each in (data, frames.request(b"n" * 16, 24)):
            asker.sendto(each, (ADDRESSES[1], PROBE_PORT))
        assert asker.recv(100) == frames.answer(b"n" * 16), "the first answer is that to the request behind it"


@pytest.mark.parametrize("size_bytes", [-1, 23, 65_508])
def test_a_size_that_no_datagram_has_is_refused(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="24 to 65507"):
        frames.request(bytes(16), size_bytes)
