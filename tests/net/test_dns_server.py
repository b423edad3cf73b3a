"""The name server itself, over real sockets on the loopback: who asks from 127.0.0.0/8 is a host and sees all names."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from net import dns_exchange, dns_limits, dns_server, dns_tcp, dns_udp, dns_upstream
from net import dns_message as message
from net.desired_changes import DesiredIndex
from net.dns_answers import Answers
from net.dns_limits import MAKING_POINTS, POINTS_MAX
from net.dns_server import NameServer
from net.dns_upstream import Upstream
from net.model import Counters, DesiredNetwork
from tests.net.test_dns_answers import CROWDED
from tests.net.test_dns_names import DESIRED
from tests.net.test_dns_upstream import FIRST, FakeServer, Reply, addresses, code, free_port, silence

ADDRESS, ASKER, OTHER = "127.0.77.1", "127.0.0.11", "127.0.0.12"
NAME = "web.shop"
LONG_SECONDS = 60.0  # what is waited for comes sooner, however busy the machine is


class Served:
    def __init__(self, reply: Reply) -> None:
        self.counters = Counters()
        self.upstream_server = FakeServer(reply)
        self._answers, self._index = Answers(), DesiredIndex()
        self._upstream = Upstream(self.counters, [FIRST])
        self.server = NameServer(self._answers, self._upstream, self.counters)
        self.advance(DESIRED)

    def advance(self, desired: DesiredNetwork) -> None:
        self._answers.advance(self._index, desired)

    async def run(self, nursery: trio.Nursery) -> None:
        await nursery.start(self._upstream.run)
        await nursery.start(self.upstream_server.serve, FIRST, dns_exchange.PORT)
        nursery.start_soon(self.server.serve, ADDRESS)
        while await trio.to_thread.run_sync(_silent):
            await trio.sleep(0.01)


def _silent() -> bool:
    try:
        return not ask_many([message.write_query(1, NAME, 1)], seconds=0.2)
    except OSError:
        return True


@contextlib.asynccontextmanager
async def serving(reply: Reply = silence) -> AsyncIterator[Served]:
    served = Served(reply)
    async with trio.open_nursery() as nursery:
        await served.run(nursery)
        yield served
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free ports, and nothing that is given up or asked again on a busy machine."""
    port = free_port(ADDRESS, FIRST)
    monkeypatch.setattr(dns_server, "PORT", port)
    monkeypatch.setattr(dns_exchange, "PORT", port)
    monkeypatch.setattr(dns_tcp, "IDLE_SECONDS_MAX", LONG_SECONDS)
    for name in ("NEXT_ATTEMPT_SECONDS", "QUESTION_SECONDS_MAX", "STALE_AFTER_SECONDS"):
        monkeypatch.setattr(dns_upstream, name, LONG_SECONDS)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(2 * LONG_SECONDS):
            await body()

    trio.run(bounded)


def ask_many(queries: list[bytes], source: str = ASKER, seconds: float = LONG_SECONDS) -> dict[int, bytes]:
    """Identifier -> answer, of what came in time. All at once, over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((source, 0))
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        asker.connect((ADDRESS, dns_server.PORT))
        for query in queries:
            asker.send(query)
        found: dict[int, bytes] = {}
        deadline = time.monotonic() + seconds
        while len(found) < len(queries) and (left := deadline - time.monotonic()) > 0:
            asker.settimeout(left)
            with contextlib.suppress(TimeoutError):
                answer = asker.recv(4096)
                found[int.from_bytes(answer[:2], "big")] = answer
        return found


async def ask(name: str, kind: int = 1) -> tuple[int, str]:
    """(response code, the last four bytes as an address)."""
    query = message.write_query(77, name, kind)
    answers = await trio.to_thread.run_sync(ask_many, [query])
    return message.response_code(answers[77]), socket.inet_ntoa(answers[77][-4:])


def test_everyone_gets_the_answer_to_the_own_question() -> None:
    async def body() -> None:
        async with serving():
            names = [("web.shop", "10.120.0.1"), ("one.shop", "10.120.0.2"), ("blog.blog", "10.120.0.4")]
            queries = [message.write_query(number, names[number % 3][0], 1) for number in range(200)]
            found = await trio.to_thread.run_sync(ask_many, queries)
            assert len(found) == 200
            for number, answer in found.items():
                assert socket.inet_ntoa(answer[-4:]) == names[number % 3][1]
                assert answer[12:].startswith(queries[number][12:]), "the question comes back as it was"

    run(body)


def test_a_change_is_seen_by_the_next_question() -> None:
    async def body() -> None:
        async with serving() as served:
            for number in range(20):
                frontends = tuple(replace(each, vip=f"10.120.9.{number}") for each in DESIRED.frontends)
                served.advance(replace(DESIRED, frontends=frontends))
                assert await ask(NAME) == (0, f"10.120.9.{number}")

    run(body)


def test_names_may_change_while_they_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with serving() as served:
            served.advance(CROWDED)  # before that the name would be asked of upstream, which is silent
            stop = threading.Event()
            answered = []
            queries = [message.write_query(number, "tasks.crowd.shop", 1) for number in range(16)]

            def watch() -> None:
                while not stop.is_set():
                    answered.append(len(ask_many(queries)))

            watching = threading.Thread(target=watch)
            watching.start()
            changes = 0
            while changes < 100 or len(answered) < 5:
                changes += 1
                served.advance(CROWDED if changes % 2 else replace(CROWDED, endpoints=DESIRED.endpoints))
                await trio.sleep(0.002)
            stop.set()
            await trio.to_thread.run_sync(watching.join)
            assert set(answered) == {len(queries)}

    run(body)
    assert not caplog.records


def test_names_are_answered_while_the_daemon_computes() -> None:
    async def body() -> None:
        async with serving():
            answered: list[dict[int, bytes]] = []

            def ask_some() -> None:
                answered.extend(ask_many([message.write_query(1, NAME, 1)]) for _ in range(20))

            asking = threading.Thread(target=ask_some, daemon=True)
            asking.start()
            asking.join(LONG_SECONDS)  # what trio must not do: nothing else of it runs meanwhile
            assert len(answered) == 20 and all(answered)

    run(body)


def test_outside_names_are_asked_for_and_kept() -> None:
    async def body() -> None:
        async with serving(addresses("203.0.113.7")) as served:
            for _ in range(3):
                assert await ask("example.com") == (0, "203.0.113.7")
            assert len(served.upstream_server.asked) == 1

    run(body)


def test_a_large_answer_from_outside_is_truncated_to_what_the_asker_takes() -> None:
    async def body() -> None:
        def large(query: message.Query, tcp: bool) -> bytes:
            return message.write_response(
                query, 0, [message.address_record(f"203.0.113.{number}", 60) for number in range(60)]
            )

        async with serving(large):
            for _ in range(2):  # asked for, then kept
                plain = message.write_query(1, "example.com", 1)
                wide = message.write_query(2, "example.com", 1, udp_bytes_max=1232)
                found = await trio.to_thread.run_sync(ask_many, [plain, wide])
                assert int.from_bytes(found[1][2:4], "big") & message.TRUNCATED
                assert len(found[1]) <= 512
                assert int.from_bytes(found[2][6:8], "big") == 60

    run(body)


def test_an_asker_over_its_limit_does_not_keep_others_from_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dns_limits, "POINTS_PER_WINDOW", 1)  # or a slow asker is never over it
        async with serving() as served:
            limit = POINTS_MAX // MAKING_POINTS
            flood = [
                message.write_query(number, f"x{number}.missing.fairway.internal", 1) for number in range(2 * limit)
            ]

            def many() -> int:
                return sum(
                    len(ask_many(flood[start : start + 200], seconds=0.05)) for start in range(0, len(flood), 200)
                )

            answered = await trio.to_thread.run_sync(many)
            assert answered < len(flood)
            assert served.counters.dns_refused_count > 0
            found = await trio.to_thread.run_sync(ask_many, [message.write_query(9, NAME, 1)], OTHER)
            assert message.response_code(found[9]) == 0

    run(body)


def test_noise_harms_nobody() -> None:
    async def body() -> None:
        async with serving():
            chance = random.Random(4)
            query = message.write_query(5, NAME, 1, udp_bytes_max=1232)
            noise = [chance.randbytes(chance.randrange(120)) for _ in range(300)]
            for _ in range(300):
                damaged = bytearray(query)
                for _ in range(chance.randrange(1, 6)):
                    damaged[chance.randrange(len(damaged))] = chance.randrange(256)
                noise.append(bytes(damaged))
            noise.append(bytes(9000))
            await trio.to_thread.run_sync(ask_many, noise, OTHER, 0.1)
            assert await ask(NAME) == (0, "10.120.0.1")

    run(body)


def test_an_end_is_quick_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dns_udp, "STOP_SECONDS_MAX", LONG_SECONDS)
        async with serving():
            assert any(each.name == "names" for each in threading.enumerate())
            began = time.monotonic()
        assert time.monotonic() - began < LONG_SECONDS / 2
        assert not any(each.name == "names" for each in threading.enumerate())

    run(body)


def framed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


async def connect() -> trio.SocketStream:
    return await trio.open_tcp_stream(ADDRESS, dns_server.PORT)


async def read_framed(stream: trio.SocketStream, count: int) -> list[bytes]:
    received = bytearray()
    found: list[bytes] = []
    while len(found) < count:
        part = await stream.receive_some(65536)
        assert part, "closed"
        received += part
        while len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
            end = 2 + int.from_bytes(received[:2], "big")
            found.append(bytes(received[2:end]))
            del received[:end]
    return found


def test_queries_over_tcp_need_not_wait_for_each_other() -> None:
    async def body() -> None:
        async with serving(code(message.SERVER_FAILURE)) as served, await connect() as stream:
            served.upstream_server.may_answer = trio.Event()
            queries = [message.write_query(0, "slow.example.com", 1)]
            queries += [message.write_query(number, NAME, 1) for number in range(1, 51)]
            await stream.send_all(b"".join(map(framed, queries)))
            found = await read_framed(stream, 50)
            served.upstream_server.may_answer.set()
            assert {int.from_bytes(answer[:2], "big") for answer in found} == set(range(1, 51))
            (last,) = await read_framed(stream, 1)
            assert (last[:2], message.response_code(last)) == (b"\0\0", message.SERVER_FAILURE)

    run(body)


def test_queries_over_tcp_may_come_in_pieces() -> None:
    async def body() -> None:
        async with serving(addresses("203.0.113.7")), await connect() as stream:
            data = framed(message.write_query(1, NAME, 1)) + framed(message.write_query(2, "example.com", 1))
            for byte in data:
                await stream.send_all(bytes([byte]))
            found = await read_framed(stream, 2)
            assert [socket.inet_ntoa(each[-4:]) for each in found] == ["10.120.0.1", "203.0.113.7"]

    run(body)


def test_idle_and_nonsense_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with serving():
            monkeypatch.setattr(dns_tcp, "IDLE_SECONDS_MAX", 0.3)
            async with await connect() as stream:
                await stream.send_all(b"\0")
                with contextlib.suppress(trio.BrokenResourceError):  # it was idle before that byte was read
                    assert await stream.receive_some(10) == b""
            monkeypatch.setattr(dns_tcp, "IDLE_SECONDS_MAX", LONG_SECONDS)
            async with await connect() as stream:
                await stream.send_all(framed(b"nonsense"))
                assert await stream.receive_some(10) == b""
            assert await ask(NAME) == (0, "10.120.0.1")

    run(body)


def test_connections_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dns_tcp, "CONNECTIONS_PER_ASKER_MAX", 3)
        async with serving() as served:
            open_ones = [await connect() for _ in range(3)]
            for stream in open_ones:
                await stream.send_all(framed(message.write_query(1, NAME, 1)))
                await read_framed(stream, 1)
            async with await connect() as stream:
                with pytest.raises((trio.BrokenResourceError, AssertionError)):
                    await stream.send_all(framed(message.write_query(1, NAME, 1)))
                    await read_framed(stream, 1)
            assert served.counters.dns_refused_count == 1
            await open_ones.pop().aclose()
            while True:
                async with await connect() as stream:
                    with contextlib.suppress(trio.BrokenResourceError, AssertionError):
                        await stream.send_all(framed(message.write_query(1, NAME, 1)))
                        await read_framed(stream, 1)
                        break
            for stream in open_ones:
                await stream.aclose()

    run(body)
