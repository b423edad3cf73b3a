"""Consensus as operators and other hosts see it: each voter answers for itself, and asks the others."""

from __future__ import annotations

import grpc
import trio

from daemon import lookup
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.raft_status_plan import raft_status
from daemon.errors import Kind, Refused
from daemon.peers import target
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from raft.member import Member

ASK_TIMEOUT_S = 1.0


async def hand_over(context: VoterContext, wanted: objects.Node | None = None) -> str:
    """Lets that voter lead, or any other; the node id of who does. Raises Refused where this leader goes on."""
    status = context.member.status()
    others = {peer.node_id: peer for peer in status.peers if peer.node_id in status.voters}
    if wanted is None:
        reason = "no other voter took over" if others else "it is the only one with a vote"
        words = f"{context.node_name(context.identity.node_id)} goes on leading: {reason}"
    elif wanted.meta.id not in others:
        raise Refused(f"{wanted.meta.name} has no vote, so it cannot lead: `fairway raft status`", Kind.NOT_POSSIBLE)
    elif not others[wanted.meta.id].connected:
        raise Refused(f"{wanted.meta.name} cannot lead: it is not connected to the leader", Kind.NOT_POSSIBLE)
    else:
        words = f"{wanted.meta.name} did not take over; see the leader's log, and try again"
    leader = await context.leadership.hand_over(wanted.meta.id if wanted is not None else "")
    if not leader:
        raise Refused(words, Kind.NOT_POSSIBLE)
    return leader


def own_part(member: Member) -> host.RaftMember:
    """This host's part in consensus now."""
    status = member.status()
    return host.RaftMember(
        role=status.role,
        term=status.term,
        leader_id=status.leader_id or "",
        commit_index=status.commit_index,
        applied_revision=status.applied_revision,
        quorum=status.quorum,
        voters=status.voters,
        peers=[
            host.RaftPeer(
                node_id=peer.node_id,
                last_heard_ms=peer.last_heard_ms,
                lag_entries=peer.lag_entries,
                connected=peer.connected,
            )
            for peer in status.peers
        ],
        error=status.error,
    )


class ControlRaft:
    """The status runs on any voter, with or without a majority: that is when people look."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def raft_status(self, _request: control.RaftStatusRequest, _caller: Caller) -> control.RaftStatusReply:
        context = self._context
        own = own_part(context.member)
        nodes = [
            node
            for node in context.store.table(objects.Node)
            if node.role == objects.NODE_ROLE_VOTER or node.meta.id in own.voters
        ]
        answers: dict[str, host.RaftMember | str] = {context.identity.node_id: own}
        async with trio.open_nursery() as nursery:
            for node in nodes:
                if node.meta.id != context.identity.node_id:
                    nursery.start_soon(self._ask, node, answers)
        return raft_status(nodes, answers, context.identity.node_id)

    async def transfer_leadership(
        self, request: control.TransferLeadershipRequest, _caller: Caller
    ) -> control.TransferLeadershipReply:
        context = self._context
        context.leading()
        store = await context.current_store()
        wanted = lookup.find_node(store, request.node) if request.node else None
        here = context.node_name(context.identity.node_id)
        if wanted is None or wanted.meta.id != context.identity.node_id:
            there = await hand_over(context, wanted)
            return control.TransferLeadershipReply(leader_name=context.node_name(there), former_name=here)
        return control.TransferLeadershipReply(leader_name=here, former_name=here)

    async def _ask(self, node: objects.Node, answers: dict[str, host.RaftMember | str]) -> None:
        stub = self._context.host(node)
        try:
            answers[node.meta.id] = await call(
                stub.ReadRaft(host.ReadRaftRequest(), timeout=ASK_TIMEOUT_S)  # type: ignore[arg-type]
            )
        except grpc.aio.AioRpcError as error:
            silent = error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            where = f"does not answer at {target(node.address, node.api_port)}"
            answers[node.meta.id] = where if silent else error.details() or error.code().name.lower()
