"""What runs only on the host that leads: sessions, orchestrator, liveness, voters, one certificate authority.

It starts after a read barrier, begins with a full reconcile, and ends at once when the leadership does.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import trio

from daemon.config import TimingConfig
from daemon.errors import Refused
from daemon.garbage.image_age import keep_image_ages
from daemon.ids import new_id
from daemon.leader.autoscaler import Autoscaler
from daemon.leader.encryption import EncryptionSteps
from daemon.leader.feature_level import raise_feature_level
from daemon.leader.knocking import Knocking
from daemon.leader.liveness_plan import Limits, Signs, falling_silent, plan_liveness
from daemon.leader.load_weights import keep_load_weights
from daemon.leader.rebalancer import Rebalancer
from daemon.leader.rollout_checks import RolloutChecks
from daemon.leader.sessions import Sessions
from daemon.leader.voters import Voters
from daemon.leader.waking_time import WakingTime
from daemon.leader.writer import Writer
from daemon.orchestration.orchestrator import Orchestrator
from raft.errors import NotServed
from raft.member import Member

logger = logging.getLogger(__name__)

BARRIER_TIMEOUT_S = 5.0
LIVENESS_INTERVAL_S = 0.25
RESTART_BACK_OFF_S = 0.5


def now_unix_ms() -> int:
    """The time that goes into what this host proposes."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Leading:
    """The services of a leader in office."""

    sessions: Sessions
    writer: Writer


class Leadership:
    """Watches this host's part in consensus; `current` is there while it leads."""

    def __init__(self, member: Member, node_id: str, timing: TimingConfig, image_keep_days: int) -> None:
        self.current: Leading | None = None
        self._member = member
        self._node_id = node_id
        self._limits = Limits(timing.host_down_ms / 1000, timing.host_restart_ms / 1000)
        self._voter_replace_ms = timing.voter_replace_ms
        self._image_keep_days = image_keep_days
        self._changed = trio.Event()
        self._former: tuple[str, float] | None = None  # the leader before: node id, last heard

    async def wait_changed(self) -> None:
        """Returns at the next change of who leads, as far as this host knows."""
        await self._changed.wait()

    async def hand_over(self, to: str = "") -> str:
        """Lets that voter lead; or else the one that is nearest to this leader's log, or the next. Returns who does,
        when this host does not lead any more; empty: nobody took over, or this host did not lead."""
        status = self._member.status()
        able = [peer for peer in status.peers if peer.connected and peer.node_id in status.voters]
        for peer in sorted(able, key=lambda peer: peer.lag_entries):
            if to and peer.node_id != to:
                continue
            if self._member.status().role != "leader":
                break
            try:
                await self._member.transfer_leadership(peer.node_id)
                logger.info("%s leads now", peer.node_id)
                return peer.node_id
            except NotServed as error:
                logger.info("the leadership was not handed to %s: %s", peer.node_id, error)
        return ""

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Leads whenever this host is elected, until cancelled."""
        async with trio.open_nursery() as nursery:
            scope: trio.CancelScope | None = None
            async for status in self._member.role_changes():
                leads = status.role == "leader"
                if not leads and status.leader_id is not None:
                    self._former = (status.leader_id, status.last_leader_heard)
                if leads and scope is None:
                    scope = await nursery.start(self._lead)
                elif not leads and scope is not None:
                    after = f"{status.leader_id} does" if status.leader_id else "nobody is known to yet"
                    logger.info("this host does not lead any more, %s", after)
                    scope.cancel()
                    scope = None
                self._notify()

    async def _lead(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        former = self._former
        if former is not None:
            former = (former[0], max(former[1], self._member.status().last_leader_heard))
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                try:
                    await self._member.read_barrier(BARRIER_TIMEOUT_S)
                    await self._hold_office(former)
                except NotServed as reason:  # it was elected, and no majority has confirmed it
                    logger.info("this host does not lead yet: %s", reason)
                except Exception:
                    logger.exception("leading failed; starting over")
                finally:
                    self.current = None
                    self._notify()
                await trio.sleep(RESTART_BACK_OFF_S)

    async def _hold_office(self, former: tuple[str, float] | None) -> None:
        writer = Writer(self._member, now_unix_ms, new_id)
        waking = WakingTime()
        sessions = Sessions(writer, waking.now, now_unix_ms)
        if former is not None:
            sessions.last_heard_s[former[0]] = waking.now() - (time.monotonic() - former[1])
        orchestrator = Orchestrator(writer, now_unix_ms, new_id)
        logger.info("this host leads the cluster now")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.run)
            self.current = Leading(sessions, writer)
            self._notify()
            nursery.start_soon(orchestrator.run)
            nursery.start_soon(waking.run)
            nursery.start_soon(self._judge_hosts, writer, sessions, waking)
            voters = Voters(self._member, writer, now_unix_ms, self._voter_replace_ms)
            nursery.start_soon(voters.run)
            nursery.start_soon(EncryptionSteps(writer, sessions, now_unix_ms).run)
            nursery.start_soon(raise_feature_level, self._member, writer)
            nursery.start_soon(keep_load_weights, writer, sessions.loads)
            nursery.start_soon(keep_image_ages, writer, self._image_keep_days)
            nursery.start_soon(Rebalancer(writer, now_unix_ms).run)
            nursery.start_soon(Autoscaler(writer, sessions.loads, waking.now).run)
            nursery.start_soon(RolloutChecks(writer, sessions.loads, waking.now).run)

    async def _judge_hosts(self, writer: Writer, sessions: Sessions, waking: WakingTime) -> None:
        knocking = Knocking(waking.now)
        signs = Signs(sessions.last_heard_s, waking.now(), knocking.answered_s, sessions.too_old)
        async with trio.open_nursery() as nursery:
            while True:
                knocking.knock(nursery, falling_silent(writer.store, signs, self._limits, waking.now()))
                try:
                    await writer.commit(
                        lambda store, now, _: (plan_liveness(store, signs, self._limits, waking.now(), now), None),
                        actor="leader",
                    )
                except Refused as refused:
                    logger.warning("the state of hosts was not committed: %s", refused.message)
                await trio.sleep(LIVENESS_INTERVAL_S)
