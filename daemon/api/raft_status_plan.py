"""What consensus is like, from what each voter says of itself, and what losing a host would mean. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from daemon.identity.places import place_text
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects

ZONE_LABEL = "zone"
UP_ROLES = ("leader", "follower", "candidate")


def raft_status(
    nodes: Iterable[objects.Node], answers: Mapping[str, host.RaftMember | str], asked_id: str
) -> control.RaftStatusReply:
    """`answers`: node id -> its own words, or why there are none; `asked_id` is always among them.

    Who votes is taken from the leader that a majority follows, else from the host that was asked.
    """
    own = answers[asked_id]
    assert isinstance(own, host.RaftMember)
    spoken = {node_id: answer for node_id, answer in answers.items() if isinstance(answer, host.RaftMember)}
    leader_id = _leader(spoken)
    leader = spoken.get(leader_id)
    voters = list(leader.voters if leader is not None else own.voters)
    up = {node_id for node_id in voters if node_id in spoken and spoken[node_id].role in UP_ROLES}
    reply = control.RaftStatusReply(
        leader_id=leader_id,
        term=max(member.term for member in spoken.values()),
        voter_count=len(voters),
        voters_up=len(up),
        quorum=leader is not None,
        asked_id=asked_id,
        summary=_summary(len(voters), len(up), leader is not None),
    )
    known = {node.meta.id: node for node in nodes}
    for node_id in {*known, *voters}:
        node = known.get(node_id, objects.Node(meta=objects.Meta(id=node_id, name=node_id)))
        reply.members.append(_view(node, answers.get(node_id, "is not known"), leader_id, leader, voters, up))
    reply.members.sort(key=lambda member: member.name)
    return reply


def _leader(spoken: Mapping[str, host.RaftMember]) -> str:
    """The one with the newest term of those that lead and hear a majority; empty where there is none."""
    leading = [
        (member.term, node_id) for node_id, member in spoken.items() if member.role == "leader" and member.quorum
    ]
    return max(leading)[1] if leading else ""


def _view(
    node: objects.Node,
    answer: host.RaftMember | str,
    leader_id: str,
    leader: host.RaftMember | None,
    voters: Collection[str],
    up: Collection[str],
) -> control.RaftMemberView:
    view = control.RaftMemberView(
        node_id=node.meta.id,
        name=node.meta.name,
        zone=node.meta.labels.get(ZONE_LABEL, ""),
        address=place_text(node.address, node.raft_port) if node.address else "",
        voter=node.meta.id in voters,
        last_heard_ms=-1,
        lag_entries=-1,
        if_lost=if_lost(node.meta.id, voters, up, leader_id),
    )
    if isinstance(answer, host.RaftMember):
        view.role, view.term, view.applied_revision = answer.role, answer.term, answer.applied_revision
        view.problem = answer.error
    else:
        view.role, view.problem = "unknown", answer
    if leader is not None:
        if node.meta.id == leader_id:
            view.last_heard_ms, view.lag_entries = 0, 0
        for peer in leader.peers:
            if peer.node_id == node.meta.id:
                view.last_heard_ms = peer.last_heard_ms
                view.lag_entries = peer.lag_entries if peer.last_heard_ms >= 0 else -1
    return view


def if_lost(node_id: str, voters: Collection[str], up: Collection[str], leader_id: str) -> str:
    """What the cluster does when this host is lost as well, in words."""
    if node_id not in voters:
        return "cluster goes on"
    left = len(set(up) - {node_id})
    if 2 * left <= len(voters):
        return f"no majority ({left} of {len(voters)} left): refuses writes"
    if node_id == leader_id:
        return "cluster goes on, another host leads within 2 s"
    return "cluster goes on"


def _summary(voters: int, up: int, leads: bool) -> str:
    if not voters:
        return "this host knows of no voters yet"
    majority = voters // 2 + 1
    if voters == 1:
        return "works, but this host is the only voter: lose it and the state is gone" if leads else "no leader now"
    counts = f"{up} of {voters} voters are up, {majority} are a majority"
    if up < majority:
        return f"no majority: {counts}. Nothing can be changed; containers go on"
    if not leads:
        return f"no leader now: {counts}. One is elected within seconds where they reach each other"
    spare = up - majority
    if spare == 0:
        return f"works, and can lose no voter more: {counts}"
    return f"works, and can lose {spare} voter{'s' if spare > 1 else ''} more: {counts}"
