"""Which hosts vote and which one leads: carries out daemon/leader/voters_plan.py, and tells who was left out.

One membership change at a time, each committed before the next is thought about. A host of role voter
without a vote gets the log until it has seen the newest membership: one that lost its vote while it was away
learns so, and one that was dropped when the cluster was recovered follows the cluster as it is now. A voter that lost
its disk has forgotten what it promised: its vote is taken before it gets one again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from daemon.errors import Refused
from daemon.known_peers import may_vote, peer_of
from daemon.leader.voters_plan import VoterStep, plan_voters, record_voters
from daemon.leader.writer import Writer
from proto import objects_pb2 as objects
from raft.errors import NotServed
from raft.features import level_of
from raft.member import Member
from raft.settings import Peer
from raft.status import RaftStatus

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
CHANGE_TIMEOUT_S = 35.0  # above the time in which a newcomer must catch up (raft/requests.py)
TOLD_AT_ONCE_MAX = 8  # members without a vote that get the log at the same time


class Voters:
    """Runs while this host leads."""

    def __init__(self, member: Member, writer: Writer, now_unix_ms: Callable[[], int], replace_ms: int) -> None:
        self._member = member
        self._writer = writer
        self._now_unix_ms = now_unix_ms
        self._replace_ms = replace_ms
        self._placed: dict[str, Peer] = {}  # what the log says of a voter's address, as far as this leader wrote it
        self._telling: dict[str, Peer] = {}
        self._told: dict[str, tuple[str, ...]] = {}  # node id -> the membership that it has seen

    async def run(self) -> None:
        """Looks at every change of the nodes, and once a second."""
        while True:
            revision = self._writer.store.revision
            try:
                await self._reconcile()
            except (NotServed, Refused, trio.TooSlowError) as error:
                logger.warning("the voters stay as they are for now: %s", error)
            with trio.move_on_after(INTERVAL_S):
                await self._writer.store.changed(revision)
                await trio.sleep(INTERVAL_S / 4)

    async def _reconcile(self) -> None:
        nodes = list(self._writer.store.table(objects.Node))
        status = self._member.status()
        await self._tell(status)
        await self._place(nodes, status)
        if status.lost_logs:
            await self._take_vote_of_lost_disk(status.lost_logs[0])
            return
        level = level_of(self._writer.store)
        step = plan_voters(nodes, status.voters, status.leader_id or "", self._now_unix_ms(), self._replace_ms, level)
        if step is not None:
            await self._change(step)
        voters = self._member.status().voters
        await self._writer.commit(lambda store, _now, _id: (record_voters(store, voters), None), "leader")

    async def _take_vote_of_lost_disk(self, node_id: str) -> None:
        """Its new log is that of a newcomer; it gets a vote again as any host of its role does."""
        logger.warning("voters: %s has lost its state: its vote is taken until it has caught up", node_id)
        with trio.fail_after(CHANGE_TIMEOUT_S):
            await self._member.remove_voter(node_id)
        self._told.pop(node_id, None)

    async def _change(self, step: VoterStep) -> None:
        logger.info("voters: %s", step.message)
        with trio.fail_after(CHANGE_TIMEOUT_S):
            if step.add is not None:
                self._telling.pop(step.add.meta.id, None)
                await self._member.add_voter(peer_of(step.add))
            if step.remove:
                await self._member.remove_voter(step.remove)
            if step.hand_over:
                await self._member.transfer_leadership(step.hand_over)

    async def _place(self, nodes: list[objects.Node], status: RaftStatus) -> None:
        """A voter whose host has another address now gets it into the membership; no change where it has it."""
        for node in nodes:
            peer = peer_of(node)
            if node.meta.id in status.voters and node.address and self._placed.get(node.meta.id) != peer:
                with trio.fail_after(CHANGE_TIMEOUT_S):
                    await self._member.add_voter(peer)
                self._placed[node.meta.id] = peer

    async def _tell(self, status: RaftStatus) -> None:
        """The log for hosts of role voter that have no vote, a few at a time, until they have seen all of it."""
        lag = {peer.node_id: peer.lag_entries for peer in status.peers}
        wanted = {
            node_id: peer for node_id, peer in may_vote(self._writer.store).items() if node_id not in status.voters
        }
        for node_id in list(self._telling):
            if node_id not in wanted or lag.get(node_id) == 0:
                peer = self._telling.pop(node_id)
                if node_id in wanted:
                    self._told[node_id] = status.voters
                await self._member.follow(peer, wanted=False)
        for node_id, peer in wanted.items():
            if self._told.get(node_id) == status.voters or self._telling.get(node_id) == peer:
                continue
            if len(self._telling) < TOLD_AT_ONCE_MAX:
                self._telling[node_id] = peer
                await self._member.follow(peer, wanted=True)
