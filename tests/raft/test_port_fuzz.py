"""The raft port under fire: random bytes, broken TLS, foreign certificates, a removed member, frames that are too
long, too slow or senseless. Half a minute long; the cluster works all the while and grows by nothing."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import resource
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from raft.codec import encode, encode_hello, framed
from raft.member import Ambiguous, Member, Unavailable
from raft.messages import Append, AppendReply, StaleTerm, TakeOver, Vote, VoteRequest
from raft.refusals import LINES_MINUTE_MAX, REMEMBERED_MAX, Newcomers, Refusals
from tests.raft.certificates import Authority, NodeTls
from tests.raft.members import LOOPBACK, STEADY, Cluster, cluster_of_three, until, write

SECONDS = float(os.environ.get("FAIRWAY_FUZZ_SECONDS", "30"))
ATTACKERS = 4
WRITE_SECONDS_MAX = 20.0
GROWTH_BYTES_MAX = 48 << 20
ENDED = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[1]) * resource.getpagesize()


async def written(leader: Member, name: str) -> None:
    """Writes within seconds; a moment without a majority is borne, for the machine may be busy."""
    with trio.fail_after(WRITE_SECONDS_MAX):
        while True:
            try:
                await write(leader, name)
                return
            except (Ambiguous, Unavailable):  # the request id makes the repeat harmless
                await trio.sleep(0.05)


class Attacker:
    """One attempt at a time on a random member's port; the kind is drawn from `attacks`."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self._ports = [peer.port for peer in cluster.peers.values()]
        self._random = random.Random(seed)
        foreign = folder / f"foreign-{seed}"
        foreign.mkdir()
        self._foreign = Authority(foreign, "another authority").tls("a")
        self._foreign_path, self._own_authority = self._foreign, cluster.authority
        self._stranger = cluster.authority.tls(f"stranger-{seed}")
        self.removed: NodeTls | None = None
        self.counts: dict[str, int] = {}

    async def run(self) -> None:
        attacks: list[Callable[[], Awaitable[None]]] = [
            self.noise,
            self.silence,
            self.half_a_handshake,
            self.foreign_certificate,
            self.no_certificate,
            self.stranger,
        ]
        while True:
            attack = self._random.choice(attacks)
            self.counts[attack.__name__] = self.counts.get(attack.__name__, 0) + 1
            with contextlib.suppress(*ENDED), trio.move_on_after(3.0):
                await attack()
            await trio.sleep(0.01)

    async def _plain(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(LOOPBACK, self._random.choice(self._ports))

    async def noise(self) -> None:
        async with await self._plain() as stream:
            for _ in range(self._random.randrange(1, 8)):
                await stream.send_all(self._random.randbytes(self._random.randrange(1, 20_000)))

    async def silence(self) -> None:
        async with await self._plain():
            await trio.sleep(self._random.random() * 0.2)

    async def half_a_handshake(self) -> None:
        async with await self._plain() as stream:
            hello = b"\x16\x03\x01" + struct.pack(">H", 500) + self._random.randbytes(self._random.randrange(500))
            await stream.send_all(hello)
            await trio.sleep(self._random.random() * 0.2)

    async def foreign_certificate(self) -> None:
        await self._speak(self._foreign.client_context(), [self._random.randbytes(100)])

    async def no_certificate(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self._speak(context, [framed(encode_hello(1, LOOPBACK))])

    async def stranger(self) -> None:
        """A certificate of the cluster whose node has no part in consensus, as one that was removed."""
        context = (self.removed or self._stranger).client_context()
        await self._speak(
            context, [framed(encode_hello(7, LOOPBACK)), framed(encode(VoteRequest(10**6, 10**6, 10**6)))]
        )

    async def _speak(self, context: ssl.SSLContext, contents: list[bytes]) -> None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stream = trio.SSLStream(await self._plain(), context, https_compatible=True)
        try:
            await stream.do_handshake()
            for content in contents:
                await stream.send_all(content)
            with trio.move_on_after(0.5):
                assert await stream.receive_some(1000) == b"", "the port answered a stranger"
        finally:
            await trio.aclose_forcefully(stream)


def test_fire_at_the_port_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.leader()
            term = leader.status().term
            attackers = [Attacker(cluster, tmp_path, seed) for seed in range(ATTACKERS)]
            counter, before = 0, 0
            began = time.monotonic()
            async with trio.open_nursery() as nursery:
                for attacker in attackers:
                    nursery.start_soon(attacker.run)
                while (spent := time.monotonic() - began) < SECONDS:
                    counter += 1
                    await written(leader, f"under-fire-{counter}")
                    await trio.sleep(0.05)
                    if not before and spent > SECONDS / 4:
                        gc.collect()
                        before = resident_bytes()
                nursery.cancel_scope.cancel()
            gc.collect()
            assert resident_bytes() - before < GROWTH_BYTES_MAX
            assert leader.status().role == "leader"
            assert leader.status().term == term, "the fire caused an election"
            tried = {name: sum(one.counts.get(name, 0) for one in attackers) for name in attackers[0].counts}
            assert sum(tried.values()) > 100, tried

    trio.run(main)
    said = [record for record in caplog.records if "raft port: refused" in record.getMessage()]
    assert said, "refusals are said"
    assert len(said) <= 3 * LINES_MINUTE_MAX, "and not once a try"
    # Of others' loggers there may be something that an earlier test of this process left.
    own = [record for record in caplog.records if record.name.startswith(("raft", "pysyncobj"))]
    assert not [record for record in own if record.exc_info], "nothing is unforeseen"


def test_a_member_that_sends_nonsense_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    """It has a good certificate and a vote: only the form of what it sends is wrong."""

    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.leader()
            victim = leader.settings.port
            name = next(one for one in "abc" if one != leader.settings.node_id)
            await cluster.hosts[name].stop()
            choose = random.Random(3)
            good = framed(encode(StaleTerm(1)))
            hello = framed(encode_hello(9, LOOPBACK))
            senseless: list[bytes] = [
                struct.pack(">I", 0xFFFFFFFF) + b"x" * 1000,  # far too long
                struct.pack(">I", 0),
                framed(b"\xff" * 50),
                framed(encode(AppendReply(2**62, 1, True, False, 1))),
                framed(encode(AppendReply(leader.status().term, 2**61, True, False, 1))),
                framed(encode(TakeOver(leader.status().term))),
                framed(encode(Vote(leader.status().term))),
                framed(encode(Append(1, 2**60, 1, 2**60, (), 1))),
                *(framed(choose.randbytes(choose.randrange(1, 300))) for _ in range(40)),
            ]
            for content in senseless:
                for begin in (b"", hello, hello + good):
                    with contextlib.suppress(*ENDED):
                        await _send(cluster.hosts[name].tls, victim, begin + content)
            slow = trio.SSLStream(
                await trio.open_tcp_stream(LOOPBACK, victim),
                cluster.hosts[name].tls.client_context(),
                https_compatible=True,
            )
            await slow.do_handshake()
            await slow.send_all(hello + struct.pack(">I", 4 << 20) + b"x" * 1000)  # never goes on
            assert (await write(leader, "in-spite-of-it")).code == 0
            await cluster.hosts[name].start()  # the real one takes the slow one's place
            await until(lambda: cluster.hosts[name].member.status().quorum)
            await trio.aclose_forcefully(slow)
            assert leader.status().role == "leader"

    trio.run(main)


async def _send(tls: NodeTls, port: int, content: bytes) -> None:
    stream = trio.SSLStream(await trio.open_tcp_stream(LOOPBACK, port), tls.client_context(), https_compatible=True)
    try:
        with trio.move_on_after(1.0):
            await stream.do_handshake()
            await stream.send_all(content)
    finally:
        await trio.aclose_forcefully(stream)


def test_a_removed_member_is_cut_off_and_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.leader()
            gone = next(one for one in "abc" if one != leader.settings.node_id)
            await leader.remove_voter(gone)
            left = [one for one in "abc" if one != gone]
            term = leader.status().term
            for name in left:
                cluster.hosts[name].member.forget_peer(gone)
            await until(lambda: any("was removed" in record.getMessage() for record in caplog.records))
            for _ in range(3):  # it goes on trying; nobody is disturbed, and it is said once
                await trio.sleep(0.2)
                assert (await write(leader, f"undisturbed-{_}")).code == 0
            assert leader.status().role == "leader"
            assert leader.status().term == term

    trio.run(main)
    said = [one for one in caplog.records if "was removed" in one.getMessage()]
    assert 1 <= len(said) <= 2  # each of the two that are left says it once


def test_refusals_are_said_once_a_minute_and_in_bounded_room() -> None:
    refusals = Refusals()
    assert [refusals.note("192.0.2.1", "noise", now) for now in (0.0, 1.0, 59.0, 60.5)] == [True, False, False, True]
    lines = sum(refusals.note(f"198.51.100.{number}", "noise", 70.0) for number in range(1000))
    assert lines < LINES_MINUTE_MAX
    assert len(refusals._said) <= REMEMBERED_MAX


def test_one_address_cannot_take_all_the_room() -> None:
    newcomers = Newcomers(2)
    assert [newcomers.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert newcomers.enter("192.0.2.2")
    newcomers.leave("192.0.2.1")
    assert newcomers.enter("192.0.2.1")
