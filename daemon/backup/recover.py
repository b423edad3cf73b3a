"""A voter that survived the loss of a majority goes on alone: first the plan, then the deed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import trio

from daemon.api.cluster_context import VoterContext
from daemon.backup.disaster_plan import recover_plan, require_best_survivor
from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from raft.errors import MemberFault
from raft.recovery import StoredMember, begin_anew, keep_copy, read_member
from raft.settings import Peer

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Survivor:
    """What is needed to go on alone, once the member has stopped."""

    folder: Path
    me: Peer
    kept: Path  # where the state as it was is copied to
    now_unix_ms: int

    def go_on_alone(self, last_index: int) -> None:
        """Keeps a copy, then makes this member the only voter. `last_index`: of the plan that was agreed to.

        Raises Refused where the log has grown since: it heard of something. MemberFault, OSError.
        """
        stored = read_member(self.folder)
        if last_index not in (0, stored.last_index):
            raise Refused(
                f"not recovered: this host's log has grown from entry {last_index} to {stored.last_index} since the "
                "plan was shown; look at `fairway recover --plan` again",
                Kind.CONFLICT,
            )
        keep_copy(self.folder, self.kept)
        begin_anew(self.folder, self.me, stored.store, stored.last_index, stored.term, self.now_unix_ms)
        logger.warning("this member goes on as the only voter; the state as it was is in %s", self.kept)


def survivor(context: VoterContext, now_unix_ms: int) -> Survivor:
    """This host as it would go on."""
    state_folder = context.config.host.state_folder
    settings = context.member.settings
    me = Peer(settings.node_id, settings.advertise_address or settings.listen_address, settings.port)
    return Survivor(state_folder / "raft", me, state_folder / f"raft.before-recovery-{now_unix_ms}", now_unix_ms)


async def plan_recovery(context: VoterContext) -> control.DisasterPlan:
    """Reads this member's state and asks the other voters. Raises Refused where it must not go on alone."""
    status = context.member.status()
    try:
        stored = await trio.to_thread.run_sync(read_member, context.config.host.state_folder / "raft")
    except MemberFault as error:
        raise Refused(f"cannot recover: {error}", Kind.NOT_POSSIBLE) from error
    answers = await _ask_all(context, stored)
    own_id = context.identity.node_id
    heard_ms = int((time.monotonic() - status.last_leader_heard) * 1000) if status.last_leader_heard else -1
    plan = recover_plan(stored, own_id, answers, heard_ms)
    names = {node.meta.id: node.meta.name for node in stored.store.table(objects.Node)}
    require_best_survivor(stored, answers, names)
    return plan


async def _ask_all(context: VoterContext, stored: StoredMember) -> dict[str, host.RaftMember]:
    answers: dict[str, host.RaftMember] = {}

    async def ask(node: objects.Node) -> None:
        stub = context.host(node)
        try:
            answers[node.meta.id] = await call(
                stub.ReadRaft(host.ReadRaftRequest(), timeout=ASK_TIMEOUT_S)  # type: ignore[arg-type]
            )
        except grpc.aio.AioRpcError as error:
            logger.info("%s does not answer: %s", node.meta.name, error.details())

    async with trio.open_nursery() as nursery:
        for peer in stored.membership:
            node = stored.store.get(objects.Node, peer.node_id)
            if node is not None and peer.node_id != context.identity.node_id:
                nursery.start_soon(ask, node)
    return answers
