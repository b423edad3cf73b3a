"""The leader's side of the hosts' sessions: hears them, commits what they report, sends what they need.

Reports of all hosts that arrive within a few milliseconds share one transaction. A change of the store is
turned into one common change for every host and a small one for each host concerned; a host that cannot keep
up gets the complete state instead of ever more changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from daemon.agent.host_view import merge
from daemon.agent.leader_connection import REMOVED
from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from daemon.leader.feature_level_plan import too_old
from daemon.leader.host_state_plan import HostStates
from daemon.leader.liveness_plan import host_is_up
from daemon.leader.load_weights import Loads
from daemon.leader.report_plan import plan_reports
from daemon.leader.writer import Writer
from proto import objects_pb2 as objects
from proto.host_pb2 import HostInstruction, HostReport, HostState
from raft.store import Store

logger = logging.getLogger(__name__)

BATCH_WAIT_S = 0.004
REPORTS_WAITING_MAX = 4_096
CHANGES_PENDING_MAX = 256  # of one session, before it gets the complete state instead


@dataclass
class Session:
    """One host's open session."""

    node_id: str
    scope: trio.CancelScope
    pending: list[HostState] = field(default_factory=list)
    acknowledged_sequence: int = 0
    sent_revision: int = 0  # of the last state or change that was sent
    wake: trio.Event = field(default_factory=trio.Event)

    def notify(self) -> None:
        self.wake.set()


@dataclass(frozen=True)
class Reported:
    """One report on its way into the store."""

    session: Session
    report: HostReport


class Sessions:
    """All sessions of this leader's time in office."""

    def __init__(self, writer: Writer, clock: Callable[[], float], now_unix_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._clock = clock
        self._now_unix_ms = now_unix_ms
        self._states = HostStates(writer.store)
        self._sessions: dict[str, Session] = {}
        self._network_revisions: dict[str, int] = {}
        self.last_heard_s: dict[str, float] = {}
        self.loads = Loads(clock)
        self.too_old: dict[str, str] = {}  # node id -> why its build is kept out, in words
        self._over = False
        self._reports_in, self._reports_out = trio.open_memory_channel[Reported](REPORTS_WAITING_MAX)

    @property
    def _store(self) -> Store:
        return self._writer.store

    async def run(self) -> None:
        """Commits reports and distributes changes until cancelled; every session ends with it.

        A host whose leader lost and regained its office would else go on reporting to one that is over."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_reports)
                nursery.start_soon(self._distribute)
        finally:
            self._over = True
            for session in self._sessions.values():
                session.scope.cancel()

    async def serve(self, node_id: str, receive: Receive, send: Send) -> None:
        """One session, until the host or its connection ends it. Raises Refused for a removed or outdated host."""
        self.require_member(node_id)
        if self._over:
            raise Refused("this leader's time in office is over", Kind.UNAVAILABLE)
        first: HostReport | None = await receive()
        if first is None:
            return
        self._require_level(node_id, first)
        with trio.CancelScope() as scope:
            session = Session(node_id, scope)
            before = self._sessions.pop(node_id, None)
            if before is not None:
                before.scope.cancel()
            session.pending.append(self._states.complete(node_id))
            session.notify()
            self._sessions[node_id] = session
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_instructions, session, send)
                    await self._hear(session, first, receive)
                    nursery.cancel_scope.cancel()
            finally:
                if self._sessions.get(node_id) is session:
                    del self._sessions[node_id]

    def require_member(self, node_id: str) -> None:
        """Raises Refused where the cluster does not know the node any more."""
        if self._store.get(objects.Node, node_id) is None:
            raise Refused(REMOVED, Kind.DENIED)

    def end(self, node_id: str) -> None:
        """Ends a host's session, for instance because it was removed."""
        session = self._sessions.pop(node_id, None)
        if session is not None:
            session.scope.cancel()
        self._network_revisions.pop(node_id, None)
        self.last_heard_s.pop(node_id, None)
        self.too_old.pop(node_id, None)

    def silent_ms(self, node_id: str) -> int:
        """For how long a host was not heard; -1 where it never was."""
        heard_s = self.last_heard_s.get(node_id)
        return -1 if heard_s is None else int((self._clock() - heard_s) * 1000)

    def cluster_network_revision(self) -> int:
        """The revision at which the balancers of every host that is up stand at least."""
        up = (node.meta.id for node in self._store.table(objects.Node) if host_is_up(node))
        return min((self._network_revision(node_id) for node_id in up), default=0)

    def network_revisions(self) -> dict[str, int]:
        """Where each host in session stands, by node id."""
        return {node_id: self._network_revision(node_id) for node_id in self._sessions}

    def _network_revision(self, node_id: str) -> int:
        """A host that stands at the last change it was sent stands at the newest revision."""
        reported = self._network_revisions.get(node_id, 0)
        session = self._sessions.get(node_id)
        if session is None or session.pending or reported < session.sent_revision:
            return reported
        return max(reported, self._states.revision)

    async def _hear(self, session: Session, first: HostReport, receive: Receive) -> None:
        report: HostReport | None = first
        while report is not None:
            self.last_heard_s[session.node_id] = self._clock()
            if report.loads:
                self.loads.take(report.loads)
            if report.network_revision != self._network_revisions.get(session.node_id):
                before = self.cluster_network_revision()
                self._network_revisions[session.node_id] = report.network_revision
                if self.cluster_network_revision() != before:
                    self._notify_all()
            if _says_something(report):
                await self._reports_in.send(Reported(session, report))
            else:
                session.acknowledged_sequence = max(session.acknowledged_sequence, report.sequence)
                session.notify()
            report = await receive()

    def _require_level(self, node_id: str, first: HostReport) -> None:
        """Refused where the host's build does not know all that the cluster uses: it would misread its assignments."""
        node = self._store.get(objects.Node, node_id)
        name = node.meta.name if node is not None else node_id
        problem = too_old(self._store, name, first.feature_level, first.fairway_version)
        if problem:
            self.too_old[node_id] = problem
            raise Refused(problem, Kind.NOT_POSSIBLE)
        self.too_old.pop(node_id, None)

    def _notify_all(self) -> None:
        for session in self._sessions.values():
            session.notify()

    async def _send_instructions(self, session: Session, send: Send) -> None:
        while True:
            await session.wake.wait()
            await trio.lowlevel.checkpoint()
            session.wake = trio.Event()
            pending, session.pending = session.pending, []
            instruction = HostInstruction(acknowledged_sequence=session.acknowledged_sequence)
            if pending:
                instruction.state.CopyFrom(pending[0] if len(pending) == 1 else merge(pending))
                session.sent_revision = max(session.sent_revision, instruction.state.revision)
            # After that: what this host is only now sent it does not stand at.
            instruction.cluster_network_revision = self.cluster_network_revision()
            instruction.leader_unix_ms = self._now_unix_ms()
            await send(instruction)

    async def _distribute(self) -> None:
        async with self._store.watch() as changes:
            async for batch in changes:
                if batch.resync:
                    self._states = HostStates(self._store)
                    for session in self._sessions.values():
                        session.pending = [self._states.complete(session.node_id)]
                        session.notify()
                    continue
                deltas = self._states.advance(batch)
                for session in list(self._sessions.values()):
                    self._add(session, deltas.common)
                    own = deltas.per_node.get(session.node_id)
                    if own is not None:
                        self._add(session, own)

    def _add(self, session: Session, state: HostState) -> None:
        if not state.put and not state.removed_keys:
            return
        session.pending.append(state)
        if len(session.pending) > CHANGES_PENDING_MAX:
            session.pending = [self._states.complete(session.node_id)]
        session.notify()

    async def _commit_reports(self) -> None:
        while True:
            batch = [await self._reports_out.receive()]
            await trio.sleep(BATCH_WAIT_S)
            while len(batch) < REPORTS_WAITING_MAX:
                try:
                    batch.append(self._reports_out.receive_nowait())
                except trio.WouldBlock:
                    break
            await self._commit(batch)

    async def _commit(self, batch: list[Reported]) -> None:
        reports = [(reported.session.node_id, reported.report) for reported in batch]
        try:
            await self._writer.commit(lambda store, now, _: (plan_reports(store, reports, now), None), actor="leader")
        except Refused as refused:
            logger.warning("reports of %d hosts were not committed: %s", len(batch), refused.message)
            for reported in batch:  # they report everything again in their next session
                reported.session.scope.cancel()
            return
        for reported in batch:
            session = reported.session
            session.acknowledged_sequence = max(session.acknowledged_sequence, reported.report.sequence)
            session.notify()


def _says_something(report: HostReport) -> bool:
    """Whether any of it goes into the store: heartbeats do not."""
    if report.tasks or report.images_changed or report.conditions_changed or report.volumes_discarded:
        return True
    return report.HasField("description") or report.HasField("encryption")
