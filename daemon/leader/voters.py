"""Which hosts vote: the leader keeps one, three or five voters and tells each node what it is.

One membership change at a time, each committed before the next is thought about.
"""

from __future__ import annotations

import logging

import trio

from daemon.errors import Refused
from daemon.leader.voters_plan import VoterStep, plan_voters, record_voters
from daemon.leader.writer import Writer
from proto import objects_pb2 as objects
from raft.errors import NotServed
from raft.member import Member
from raft.settings import Peer

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
CHANGE_TIMEOUT_S = 15.0


class Voters:
    """Runs while this host leads."""

    def __init__(self, member: Member, writer: Writer) -> None:
        self._member = member
        self._writer = writer

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
        for node in nodes:
            if node.meta.id in status.voters:
                self._member.update_peer_address(_peer(node))
        step = plan_voters(nodes, status.voters, status.leader_id or "")
        if step is not None:
            await self._change(step)
        voters = self._member.status().voters
        await self._writer.commit(lambda store, _now, _id: (record_voters(store, voters), None), "leader")

    async def _change(self, step: VoterStep) -> None:
        logger.info("voters: %s", step.message)
        with trio.fail_after(CHANGE_TIMEOUT_S):
            if step.add is not None:
                await self._member.add_voter(_peer(step.add))
            if step.remove:
                await self._member.remove_voter(step.remove)


def _peer(node: objects.Node) -> Peer:
    return Peer(node.meta.id, node.address, node.raft_port)
