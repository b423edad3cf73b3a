"""A host's one session with the leader: finds who leads, sends reports, takes in assignments.

The session ends on silence, on any error, and as soon as this host knows of another leader; then it is
opened anew, forever, with a bounded wait between tries: a host without its cluster has nothing else to do.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import trio

from daemon.peers import Peers
from proto.grpc_trio import call
from proto.host_pb2 import FindLeaderReply, FindLeaderRequest, HostInstruction, HostReport

logger = logging.getLogger(__name__)

REMOVED = "this host was removed from the cluster"
FIND_TIMEOUT_S = 1.0
RETRY_S_MIN = 0.05
RETRY_S_MAX = 1.0
SENT_TIMES_MAX = 1_000
REPORT_INTERVAL_S_MIN = 0.02  # changes that come closer together share a report


@dataclass(frozen=True)
class Leader:
    """Where the leader is."""

    node_id: str
    address: str
    api_port: int


class SessionHost(Protocol):
    """What the session needs of its host."""

    def first_report(self) -> HostReport:
        """All that the leader must know at the start of a session."""

    def address(self) -> str:
        """The one that other hosts reach this one by, now."""

    def next_report(self) -> HostReport:
        """What changed since the report before; its network revision in any case."""

    async def wait_report(self) -> None:
        """Returns when there is something new to report."""

    async def instructed(self, instruction: HostInstruction) -> None:
        """Takes in what the leader says."""

    def acknowledged(self, sent_s: float, leader_unix_ms: int) -> None:
        """The leader heard the report that was sent at that time (trio's clock); its clock said that since (0: not
        told)."""

    def removed(self) -> None:
        """The cluster does not know this host any more."""


class LeaderConnection:
    """Keeps a session open; `connected` says whether one is."""

    def __init__(
        self,
        host: SessionHost,
        peers: Peers,
        known_leader: Callable[[], Leader | None],
        candidates: Callable[[], list[Leader]],
        leader_changed: Callable[[], Awaitable[None]],
        heartbeat_ms: int,
        silence_ms_max: int,
    ) -> None:
        """`known_leader`: from this host's own part in consensus; `candidates`: whom else to ask."""
        self.connected = False
        self.leader: Leader | None = None
        self.error = "not connected yet"
        self._host = host
        self._peers = peers
        self._known_leader = known_leader
        self._candidates = candidates
        self._leader_changed = leader_changed
        self._heartbeat_s = heartbeat_ms / 1000
        self._silence_s_max = silence_ms_max / 1000
        self._sent_s: deque[tuple[int, float]] = deque(maxlen=SENT_TIMES_MAX)  # (sequence, when) not acknowledged yet

    async def run(self) -> None:
        """Holds sessions, one after the other, until cancelled."""
        retry_s = RETRY_S_MIN
        while True:
            leader = await self._find()
            if leader is not None:
                opened = await self._session(leader)
                retry_s = RETRY_S_MIN if opened else min(retry_s * 2, RETRY_S_MAX)
            else:
                retry_s = min(retry_s * 2, RETRY_S_MAX)
            with trio.move_on_after(retry_s):
                await self._leader_changed()

    async def _find(self) -> Leader | None:
        known = self._known_leader()
        if known is not None:
            return known
        found: list[Leader] = []
        async with trio.open_nursery() as nursery:
            for candidate in self._candidates():
                nursery.start_soon(self._ask, candidate, found, nursery.cancel_scope)
        if not found:
            self.error = "no host that can be reached knows of a leader"
        return found[0] if found else None

    async def _ask(self, candidate: Leader, found: list[Leader], scope: trio.CancelScope) -> None:
        stub = self._peers.host(candidate.node_id, candidate.address, candidate.api_port)
        try:
            reply: FindLeaderReply = await call(
                stub.FindLeader(FindLeaderRequest(), timeout=FIND_TIMEOUT_S)  # type: ignore[arg-type]
            )
        except grpc.aio.AioRpcError as error:
            self._heed_removal(error)
            return
        if reply.node_id:
            found.append(Leader(reply.node_id, reply.address, reply.api_port))
            scope.cancel()

    async def _session(self, leader: Leader) -> bool:
        """One session; whether the leader answered at all."""
        self.leader = leader
        stub = self._peers.host(leader.node_id, leader.address, leader.api_port)
        stream: Any = stub.Session()  # type: ignore[call-arg]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_with_leadership, leader, nursery.cancel_scope)
                nursery.start_soon(self._send, stream, nursery.cancel_scope)
                await self._receive(stream)
                nursery.cancel_scope.cancel()
        except* (grpc.aio.AioRpcError, grpc.aio.UsageError, ConnectionAbortedError) as group:
            self._note(group.exceptions[0])
        finally:
            stream.cancel()
            opened, self.connected = self.connected, False
        return opened

    def _note(self, error: BaseException) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            self.error = error.details() or error.code().name
            self._heed_removal(error)
        else:
            self.error = str(error)
        logger.info("session with the leader ended: %s", self.error)

    def _heed_removal(self, error: grpc.aio.AioRpcError) -> None:
        # Exactly this answer, and only from a host of the cluster: it costs the host all of its tasks.
        if error.code() is grpc.StatusCode.PERMISSION_DENIED and error.details() == REMOVED:
            self._host.removed()

    async def _end_with_leadership(self, leader: Leader, scope: trio.CancelScope) -> None:
        while True:
            await self._leader_changed()
            known = self._known_leader()
            if known is not None and known != leader:
                moved = known.node_id == leader.node_id
                self.error = "the leader has another address now" if moved else "another host leads now"
                scope.cancel()

    async def _receive(self, stream: Any) -> None:
        while True:
            with trio.move_on_after(self._silence_s_max) as scope:
                instruction = await call(stream.read())
            if scope.cancelled_caught:
                self.error = "the leader is silent"
                logger.info("session with the leader ended: it is silent")
                return
            if instruction is grpc.aio.EOF:
                self.error = "the leader ended the session"
                return
            self.connected, self.error = True, ""
            self._note_acknowledged(instruction)
            await self._host.instructed(instruction)

    def _note_acknowledged(self, instruction: HostInstruction) -> None:
        sent_s = None
        while self._sent_s and self._sent_s[0][0] <= instruction.acknowledged_sequence:
            sent_s = self._sent_s.popleft()[1]
        if sent_s is not None:
            self._host.acknowledged(sent_s, instruction.leader_unix_ms)

    async def _send(self, stream: Any, scope: trio.CancelScope) -> None:
        sequence = 0
        self._sent_s.clear()
        report = self._host.first_report()
        address = report.address
        while True:
            sequence += 1
            report.sequence = sequence
            self._sent_s.append((sequence, trio.current_time()))
            try:
                await call(stream.write(report))
            except (grpc.aio.UsageError, ConnectionAbortedError, grpc.aio.AioRpcError):
                return  # the stream has ended; the reader learns why
            await trio.sleep(REPORT_INTERVAL_S_MIN)
            with trio.move_on_after(self._heartbeat_s):
                await self._host.wait_report()
            if self._host.address() != address:
                # The session before hangs on the old one.
                self.error = "this host has another address now"
                await self._peers.forget(self.leader.node_id if self.leader else "")
                scope.cancel()
                return
            report = self._host.next_report()
