"""Asking other name servers: sharing, failover, keeping, what is stale, and who may cause how much of it."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from net import dns_exchange, dns_upstream
from net import dns_message as message
from net import dns_response as responses
from net.dns_answers import Passed
from net.dns_cache import FAILURE_SECONDS, KEPT_BYTES_MAX, RETRY_SECONDS, STALE_SECONDS_MAX, ResponseCache
from net.dns_health import SILENCE_SECONDS_FIRST, SILENCE_SECONDS_MAX, ServerHealth
from net.dns_message import Query
from net.dns_upstream import Upstream
from net.model import Counters

FIRST, SECOND = "127.0.53.1", "127.0.53.2"
QUIET_SECONDS = 0.1  # nothing is under way on the loopback when nobody has heard anything for so long
_random = random.SystemRandom()
Reply = Callable[[Query, bool], bytes | None]


def addresses(address: str, ttl_seconds: int = 60) -> Reply:
    return lambda query, tcp: message.write_response(query, 0, [message.address_record(address, ttl_seconds)])


def code(number: int) -> Reply:
    return lambda query, tcp: message.write_response(query, number)


def silence(query: Query, tcp: bool) -> bytes | None:
    return None


class FakeServer:
    """Answers what its `reply` says, over UDP and TCP."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[Query] = []
        self.ports: set[int] = set()
        self.raw: Callable[[bytes], bytes] = lambda data: data
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def serve(self, address: str, port: int, task_status: trio.TaskStatus[None]) -> None:
        datagrams = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await datagrams.bind((address, port))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_tcp, self._serve_stream, port, host=address))
            task_status.started()
            with datagrams:
                while True:
                    data, peer = await datagrams.recvfrom(4096)
                    await self.may_answer.wait()
                    self.ports.add(peer[1])
                    if (answer := self._answer(data, False)) is not None:
                        await datagrams.sendto(self.raw(answer), peer)

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        data = bytes(await stream.receive_some(4096))[2:]
        if (answer := self._answer(data, True)) is not None:
            await stream.send_all(struct.pack(">H", len(answer)) + answer)

    def _answer(self, data: bytes, tcp: bool) -> bytes | None:
        query = message.read_query(data)
        self.asked.append(query)
        return self.reply(query, tcp)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """Two servers, an upstream that knows both, and its clock."""

    def __init__(self, first: Reply, second: Reply) -> None:
        self.first, self.second = FakeServer(first), FakeServer(second)
        self.clock, self.counters = Clock(), Counters()
        self.upstream = Upstream(self.counters, [FIRST, SECOND], clock=self.clock)

    async def ask(self, name: str = "example.com", asker: str = "10.112.1.11", **settings: int) -> responses.Response:
        passed = question(name, **settings)
        return self.read(passed, await self.upstream.ask(passed, asker))

    def kept(self, name: str = "example.com") -> responses.Response | None:
        answer = self.upstream.kept(question(name))
        return None if answer is None else self.read(question(name), answer)

    def read(self, passed: Passed, answer: bytes) -> responses.Response:
        response = responses.read_response(answer, passed.query.identifier, passed.query.question)
        assert response is not None
        assert responses.same_case(answer, passed.query.question)
        return response


def question(name: str = "example.com", **settings: int) -> Passed:
    ours = bool(settings.pop("ours", 0))
    return Passed(message.read_query(message.write_query(9, name, 1, **settings)), (), ours)  # type: ignore[arg-type]


def address_of(response: responses.Response) -> str:
    return ".".join(str(byte) for byte in response.records[-4:])


@contextlib.asynccontextmanager
async def setting(first: Reply, second: Reply = silence) -> AsyncIterator[Setting]:
    made = Setting(first, second)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.first.serve, FIRST, dns_exchange.PORT)
        await nursery.start(made.second.serve, SECOND, dns_exchange.PORT)
        await nursery.start(made.upstream.run)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_exchange, "PORT", free_port(FIRST, SECOND))
    monkeypatch.setattr(dns_upstream, "NEXT_ATTEMPT_SECONDS", 0.1)
    monkeypatch.setattr(dns_upstream, "QUESTION_SECONDS_MAX", 0.6)
    monkeypatch.setattr(dns_upstream, "STALE_AFTER_SECONDS", 0.3)


def free_port(*addresses: str) -> int:
    """By UDP and by TCP, and none that the kernel gives to those who ask for any: another program may have it soon."""
    for port in _random.sample(range(10_000, 32_768), 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                for address in addresses:
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((address, port))
            return port
    raise AssertionError(f"no free port at {addresses}")


def run(body: Callable[[], Awaitable[None]], clock: trio.abc.Clock | None = None) -> None:
    """In time that goes on only where all wait for it: a machine that is busy lets none pass."""

    async def bounded() -> None:
        with trio.fail_after(60):
            await body()

    trio.run(bounded, clock=clock or trio.testing.MockClock(autojump_threshold=QUIET_SECONDS))


def test_many_askers_share_one_question_and_later_ones_its_answer() -> None:
    async def body() -> None:
        async with setting(addresses("203.0.113.7")) as there:
            found: list[str] = []

            async def one(number: int) -> None:
                name = "Example.com" if number % 2 else "eXample.COM"
                found.append(address_of(await there.ask(name, f"10.112.1.{number}")))

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(one, number)
            assert found == ["203.0.113.7"] * 50
            assert len(there.first.asked) == 1
            kept = there.kept("EXAMPLE.com")
            assert kept is not None
            there.clock.now += 59
            kept = there.kept()
            assert kept is not None
            assert [seconds for _, seconds in kept.ttls] == [1]
            there.clock.now += 1
            assert there.kept() is None

    run(body)


def test_each_question_has_a_port_an_identifier_and_a_letter_case_of_its_own() -> None:
    async def body() -> None:
        async with setting(addresses("203.0.113.7")) as there:
            for number in range(20):
                await there.ask(f"name{number}.example.com")
            assert len(there.first.ports) > 10
            assert len({query.identifier for query in there.first.asked}) > 15
            assert any(query.question.lower() != query.question for query in there.first.asked)
            assert all(query.edns for query in there.first.asked)

    run(body)


def test_an_answer_in_another_letter_case_is_asked_for_again_by_tcp() -> None:
    async def body() -> None:
        async with setting(addresses("203.0.113.7")) as there:
            name = "a-long-name-with-many-letters.example.com"
            there.first.raw = lambda data: bytes(data[:12]) + data[12:].lower()
            assert (await there.ask(name)).code == 0
            assert len(there.first.asked) == 2
            assert (await there.ask("another-name.example.com")).code == 0
            assert len(there.first.asked) == 3, "by then it is known that this server does so"

    run(body)


def test_what_does_not_answer_the_question_is_waited_past() -> None:
    async def body() -> None:
        def forged(query: Query, tcp: bool) -> bytes | None:
            other = message.read_query(message.write_query(query.identifier, "example.org", 1))
            return message.write_response(other, 0, [message.address_record("203.0.113.66", 60)])

        async with setting(forged, addresses("203.0.113.7")) as there:
            assert address_of(await there.ask()) == "203.0.113.7"

    run(body)


def test_a_truncated_answer_is_asked_for_by_tcp_and_truncated_for_askers_by_size() -> None:
    async def body() -> None:
        def large(query: Query, tcp: bool) -> bytes | None:
            records = [message.address_record(f"203.0.113.{number}", 60) for number in range(100)]
            return message.write_response(query, 0, records) if tcp else message.truncated(query)

        async with setting(large) as there:
            assert (await there.ask()).counts[0] == 100
            assert len(there.first.asked) == 2

    run(body)


def test_a_server_that_does_not_know_edns_is_asked_without() -> None:
    async def body() -> None:
        def old(query: Query, tcp: bool) -> bytes | None:
            return message.write_response(query, 1) if query.edns else addresses("203.0.113.7")(query, tcp)

        async with setting(old) as there:
            assert address_of(await there.ask()) == "203.0.113.7"

    run(body)


def test_a_silent_server_is_joined_by_the_next_and_then_avoided() -> None:
    async def body() -> None:
        async with setting(silence, addresses("203.0.113.7")) as there:
            assert address_of(await there.ask()) == "203.0.113.7"
            assert len(there.first.asked) == 1
            there.clock.now += 1.0
            there.upstream._health.was_silent(FIRST, there.clock.now)
            began = trio.current_time()
            assert address_of(await there.ask("other.example.com")) == "203.0.113.7"
            assert trio.current_time() - began < 0.1, "no wait for a server that is known to be silent"
            assert len(there.first.asked) == 1

    run(body)


@pytest.mark.parametrize("number", [message.SERVER_FAILURE, message.REFUSED])
def test_a_server_that_fails_is_followed_by_the_next(number: int) -> None:
    async def body() -> None:
        async with setting(code(number), addresses("203.0.113.7")) as there:
            assert address_of(await there.ask()) == "203.0.113.7"

    run(body)


def test_nobody_answers() -> None:
    async def body() -> None:
        async with setting(silence) as there:
            assert (await there.ask()).code == message.SERVER_FAILURE
            asked = len(there.first.asked)
            assert (await there.ask()).code == message.SERVER_FAILURE
            assert len(there.first.asked) == asked, "a failure is remembered (RFC 9520)"
            assert (await there.ask("nobody.shop", ours=1)).code == message.NAME_ERROR
            there.clock.now += FAILURE_SECONDS
            await there.ask()
            assert len(there.first.asked) > asked
            assert there.counters.dns_failure_count >= 2

    run(body)


def test_a_name_that_does_not_exist_is_kept_as_long_as_its_authority_says() -> None:
    async def body() -> None:
        def missing(query: Query, tcp: bool) -> bytes | None:
            return message.write_response(query, 3, authority=[message.authority_record("com", 30)])

        async with setting(missing) as there:
            assert (await there.ask()).code == 3
            there.clock.now += 29
            kept = there.kept()
            assert kept is not None
            assert kept.code == 3
            there.clock.now += 1
            assert there.kept() is None

    run(body)


def test_beyond_its_time_an_answer_serves_while_nobody_answers() -> None:
    async def body() -> None:
        async with setting(addresses("203.0.113.7", 60), code(message.SERVER_FAILURE)) as there:
            await there.ask()
            there.clock.now += 100
            there.first.reply = silence
            began = trio.current_time()
            stale = await there.ask()
            assert trio.current_time() - began < 0.55
            assert (stale.code, address_of(stale)) == (0, "203.0.113.7")
            assert [seconds for _, seconds in stale.ttls] == [30]
            await trio.sleep(0.5)
            assert there.kept() is not None, "for a while nobody is asked again"
            assert there.counters.dns_stale_count >= 1
            there.clock.now += RETRY_SECONDS
            there.first.reply = addresses("203.0.113.8")
            there.second.reply = addresses("203.0.113.8")
            assert address_of(await there.ask()) == "203.0.113.8"
            there.clock.now += STALE_SECONDS_MAX + 61
            there.first.reply = there.second.reply = silence
            assert (await there.ask()).code == message.SERVER_FAILURE

    run(body)


def test_one_asker_cannot_take_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dns_upstream, "QUESTIONS_PER_ASKER_MAX", 5)
        async with setting(silence) as there, trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(there.ask, f"name{number}.example.com", "10.112.1.11")
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert there.counters.dns_refused_count == 15
            there.first.reply = addresses("203.0.113.7")
            assert address_of(await there.ask("example.com", "10.112.1.12")) == "203.0.113.7"

    run(body)


def test_the_hosts_resolv_conf_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dns_upstream, "_RESOLV_CONF_CHECK_SECONDS", 0.01)
        file = tmp_path / "resolv.conf"
        file.write_text("nameserver 192.0.2.1\nnameserver 169.254.77.1\nsearch a b\n")
        upstream = Upstream(Counters(), None, file)
        assert upstream.servers() == ("192.0.2.1",)
        async with trio.open_nursery() as nursery:
            await nursery.start(upstream.run)
            file.write_text("nameserver 192.0.2.2\n")
            while upstream.servers() != ("192.0.2.2",):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    run(body, trio.testing.MockClock(rate=1))  # a thread reads the file


def test_the_cache_is_bounded_by_bytes_and_drops_what_was_not_used() -> None:
    cache = ResponseCache()
    response = responses.Response(0, False, False, (1, 0, 0), bytes(10_000), (), 60)
    count = KEPT_BYTES_MAX // response.size_bytes + 10
    first = (b"0", False, False, ())
    for number in range(count):
        cache.keep((b"%d" % number, False, False, ()), response, 0.0)
        assert cache.fresh(first, 1.0) is not None
        assert cache.size_bytes <= KEPT_BYTES_MAX
    assert cache.fresh((b"1", False, False, ()), 1.0) is None
    assert cache.fresh((b"%d" % (count - 1), False, False, ()), 1.0) is not None


def test_silence_is_remembered_for_longer_each_time() -> None:
    health = ServerHealth()
    assert health.order(["a", "b", "c"], 0.0) == ["a", "b", "c"]
    health.was_silent("a", 0.0)
    health.was_silent("a", 0.1)
    assert health.order(["a", "b", "c"], SILENCE_SECONDS_FIRST - 0.1) == ["b", "c", "a"]
    assert health.order(["a", "b", "c"], SILENCE_SECONDS_FIRST) == ["a", "b", "c"]
    now = SILENCE_SECONDS_FIRST
    for _ in range(20):
        health.was_silent("a", now)
        now += SILENCE_SECONDS_MAX
    health.was_silent("a", now)
    assert health.order(["a", "b"], now + SILENCE_SECONDS_MAX - 1) == ["b", "a"]
    assert health.order(["a", "b"], now + SILENCE_SECONDS_MAX) == ["a", "b"]
    health.was_silent("b", now)
    health.answered("b")
    assert health.order(["a", "b"], now + 1) == ["b", "a"]
