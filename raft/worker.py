"""The raft thread: one trio loop in which a driver, its database and its connections live.

It is woken by messages, requests and timers, never by polling. A fault of the disk or of the state stops
the member until the daemon is started again; a full disk or an unforeseen exception rebuilds the driver
from disk, as a restart would, after a bounded pause.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import trio

from raft.database import FILE_NAME, open_database
from raft.driver import NEVER, Driver, Turn
from raft.errors import DiskFull, MemberFault
from raft.handover import Handover
from raft.link import TlsSource
from raft.requests import Asked
from raft.settings import Peer, RaftSettings
from raft.status import Role
from raft.store import Store
from raft.transport import Transport
from raft.turns import Turns
from raft.watch import ChangeBatch

log = logging.getLogger(__name__)

RESTART_MS_MIN = 500
RESTART_MS_MAX = 10_000
SEEN_MS = 10  # `seen` trails what it tells by so long, except for roles, terms and voters
CALM_MS = 60_000  # a life longer than this makes the next pause short again


@dataclass(frozen=True)
class PeerSeen:
    """Another member, with times as time.monotonic() gives them."""

    node_id: str
    heard_at: float  # 0: never
    lag_entries: int  # -1 where this member does not lead
    connected: bool


@dataclass(frozen=True)
class Seen:
    """The member after a turn; RaftStatus is made of it."""

    at: float = 0.0
    role: Role = "stopped"
    term: int = 0
    leader_id: str | None = None
    commit_index: int = 0
    applied_revision: int = 0
    quorum: bool = False
    voters: tuple[str, ...] = ()
    peers: tuple[PeerSeen, ...] = ()
    leader_heard_at: float = 0.0
    lost_logs: tuple[str, ...] = ()
    error: str = ""

    def gist(self) -> tuple[object, ...]:
        return (self.role, self.term, self.leader_id, self.quorum, self.voters, self.error)


@dataclass(frozen=True)
class _End:
    """How a life ended: why, and whether another may follow."""

    reason: str
    final: bool


class Worker:
    """Runs in its own thread by `trio.run(worker.run)`; the other public methods are for the main thread."""

    def __init__(
        self,
        settings: RaftSettings,
        peers: Collection[Peer],
        tls: TlsSource,
        handover: Handover,
        started: Callable[[], None],
    ) -> None:
        """`started` is called in the raft thread when the state is loaded, or cannot be."""
        self.seen = Seen()
        self.requests: deque[Asked] = deque()  # the main thread appends, then calls `wake`
        self._called = False  # the bell was rung for requests, and no turn has looked since
        self._settings, self._peers, self._tls = settings, {peer.node_id: peer for peer in peers}, tls
        self._handover = handover
        self._started = started
        self._token: trio.lowlevel.TrioToken | None = None
        self._turning: Turns | None = None
        self._seen_voters: frozenset[str] = frozenset()  # when `seen` was made
        self._held: list[ChangeBatch] = []  # applied, and not shipped to the main thread yet
        self._show_due = NEVER  # when `seen` and what is held have to follow
        self._stopping = trio.Event()
        self._stop_asked = False
        self._transport: Transport | None = None
        self._members: tuple[Peer, ...] = ()

    # ---- from the main thread -----------------------------------------------------------------

    def wake(self) -> None:
        """There are requests."""
        if not self._called:
            self._called = True
            self._soon(self._ring, idempotent=True)

    def stop(self) -> None:
        """Ends `run`; safe before it began."""
        self._stop_asked = True  # seen by `run` where it has not published its token yet
        self._soon(self._stopping.set)

    def set_address(self, peer: Peer) -> None:
        """The daemon knows where a member is."""
        if self._token is None:
            self._peers[peer.node_id] = peer
        self._soon(self._take_address, peer)

    def moved(self, address: str) -> None:
        """The others reach this member at another address now."""
        self._soon(self._take_own_address, address)

    def forget_peer(self, node_id: str) -> None:
        """The daemon knows that a member was removed."""
        if self._token is None:
            self._peers.pop(node_id, None)
        self._soon(self._drop_peer, node_id)

    def _soon(self, function: Callable[..., Any], *arguments: Any, idempotent: bool = False) -> None:
        if self._token is not None:
            try:
                self._token.run_sync_soon(function, *arguments, idempotent=idempotent)
            except trio.RunFinishedError:
                log.debug("the raft thread has ended already")

    # ---- the thread ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lives)
            if not self._stop_asked:
                await self._stopping.wait()
            nursery.cancel_scope.cancel()

    def _ring(self) -> None:
        if self._turning is not None:
            self._turning.ring()

    def _take_address(self, peer: Peer) -> None:
        self._peers[peer.node_id] = peer
        if self._transport is not None:
            self._transport.set_address(peer)

    def _take_own_address(self, address: str) -> None:
        self._settings = replace(self._settings, advertise_address=address)
        if self._transport is not None:
            self._transport.moved(address)

    def _drop_peer(self, node_id: str) -> None:
        self._peers.pop(node_id, None)
        if self._transport is not None:
            self._transport.forget(node_id)

    async def _lives(self) -> None:
        pause_ms = RESTART_MS_MIN
        while True:
            began = time.monotonic()
            end = await self._life()
            self.seen = Seen(at=time.monotonic(), error=end.reason)
            self._handover.ship(Store(), (), ())
            self._started()
            if end.final:
                log.critical("this host takes no part in consensus any more: %s", end.reason)
                await trio.sleep_forever()
            log.error("consensus starts again from disk: %s", end.reason)
            if time.monotonic() - began > CALM_MS / 1000:
                pause_ms = RESTART_MS_MIN
            await trio.sleep(pause_ms / 1000)
            pause_ms = min(2 * pause_ms, RESTART_MS_MAX)

    async def _life(self) -> _End:
        """From loading the state to the end of this driver."""
        database: sqlite3.Connection | None = None
        try:
            database = open_database(self._settings.state_folder / FILE_NAME)
            driver = Driver(self._settings, database, time.monotonic(), random.random)
            return await self._connected_life(driver)
        except DiskFull as fault:
            return _End(str(fault), final=False)
        except MemberFault as fault:
            return _End(str(fault), final=True)
        except Exception as error:
            log.exception("an unforeseen error in consensus")
            return _End(f"an unforeseen error: {error!r}", final=False)
        finally:
            self._transport = None
            if database is not None:
                database.close()

    async def _connected_life(self, driver: Driver) -> _End:
        end = _End("it ended without a reason", final=False)
        async with trio.open_nursery() as nursery:
            transport = Transport(self._settings, self._tls, self._peers.values(), self._ring)
            try:
                await nursery.start(transport.run)
            except OSError as error:
                settings = self._settings
                return _End(
                    f"cannot listen on {settings.listen_address} port {settings.port} for raft: {error}",
                    final=False,
                )
            self._transport, self._members = transport, ()
            self._handover.ship(driver.store, (), (), whole=True)
            try:
                end = await self._turns(driver, transport)
            finally:
                nursery.cancel_scope.cancel()
        return end

    async def _turns(self, driver: Driver, transport: Transport) -> _End:
        usable = True
        try:
            await self._turn_forever(driver, transport)
        except Exception as error:
            usable = False
            if isinstance(error, MemberFault):
                return _End(str(error), final=not isinstance(error, DiskFull))
            raise
        finally:
            self._handover.ship(driver.store, self._held, driver.close(write=usable))
            self._held, self._show_due = [], NEVER
        return _End("it ended without a reason", final=False)

    async def _turn_forever(self, driver: Driver, transport: Transport) -> None:
        def pause() -> float:
            if self.requests or transport.inbox or transport.events:
                return 0.0
            return min(driver.wake_at(now := time.monotonic()), self._show_due) - now

        self._turning = Turns(lambda: self._one_turn(driver, transport), pause)
        try:
            await self._turning.run()
        finally:
            self._turning = None

    def _one_turn(self, driver: Driver, transport: Transport) -> None:
        now = time.monotonic()
        messages_only = not transport.events
        while transport.events:
            driver.connected(*transport.events.popleft())
        for sender, message in transport.take_inbox():
            driver.deliver(sender, message, now)
        self._called = False  # before looking, so that no request is missed
        while self.requests:
            messages_only = False
            driver.request(self.requests.popleft())
        if messages_only and self._show_due > now and driver.idle(now) and self._seen_lately(driver, now):
            return  # the answer of the slower half, of which there is one for every change
        turn = driver.turn(now, transport.send_all)
        members = driver.journal.membership + tuple(driver.consensus.learners.values())
        if members != self._members:
            self._members = members
            transport.set_members(members)
        self._publish(driver, transport, turn, now)

    def _publish(self, driver: Driver, transport: Transport, turn: Turn, now: float) -> None:
        self._held += turn.batches
        # Nobody waits for what others have changed, so it need not wake the main thread each time.
        urgent = turn.restored or turn.answers or (turn.batches and driver.consensus.leads)
        told = self._seen_lately(driver, now)
        if told and (urgent or self._held):
            self._show_due = self.seen.at + SEEN_MS / 1000
        if told and not urgent:
            return
        before = self.seen
        if not told:
            self.seen, self._seen_voters, self._show_due = _seen(driver, transport, now), driver.consensus.voters, NEVER
        if urgent or self._held or before.gist() != self.seen.gist():
            self._handover.ship(driver.store, self._held, turn.answers, whole=turn.restored)
            self._held = []
        if not told:
            self._started()

    def _seen_lately(self, driver: Driver, now: float) -> bool:
        """Whether `seen` is so fresh and like the present that this turn, of many, need not make it again."""
        seen, consensus = self.seen, driver.consensus
        return (
            now - seen.at < SEEN_MS / 1000
            and seen.quorum
            and seen.term == consensus.algorithm.term()
            and seen.role == consensus.role()
            and seen.leader_id == consensus.algorithm.leader_id()
            and self._seen_voters is consensus.voters
        )


def _seen(driver: Driver, transport: Transport, now: float) -> Seen:
    consensus, journal = driver.consensus, driver.journal
    algorithm, leads = consensus.algorithm, consensus.leads
    others = sorted((consensus.voters | consensus.learners.keys()) - {algorithm.selfNode.id})
    return Seen(
        at=now,
        role=consensus.role(),
        term=algorithm.term(),
        leader_id=algorithm.leader_id(),
        commit_index=algorithm.commit_index(),
        applied_revision=driver.store.revision,
        quorum=consensus.quorum(now),
        voters=tuple(sorted(consensus.voters)),
        peers=tuple(
            PeerSeen(
                one,
                consensus.heard_at.get(one, 0.0),
                journal.last_index - algorithm.match_index(one) if leads else -1,
                transport.is_up(one),
            )
            for one in others
        ),
        lost_logs=tuple(sorted(consensus.lost_logs)) if leads else (),
        leader_heard_at=now if leads else max(consensus.leader_heard_at, 0.0),
    )
