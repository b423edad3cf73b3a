"""`raft status` and `raft transfer`."""

from __future__ import annotations

import argparse

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_UNREACHABLE
from proto import control_pb2


def status(options: argparse.Namespace) -> int:
    """Exit status 3 where no majority of the voters is up or nobody leads."""
    reply = connect(options).call(
        "show the state of consensus",
        lambda control: control.RaftStatus(control_pb2.RaftStatusRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        _print(reply)
    return EXIT_OK if reply.quorum else EXIT_UNREACHABLE


def transfer(options: argparse.Namespace) -> int:
    """Another voter leads, before its host is touched by hand."""
    request = control_pb2.TransferLeadershipRequest(node=options.node)
    reply = connect(options).call(
        f"let {options.node or 'another host'} lead",
        lambda control: control.TransferLeadership(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    elif reply.leader_name == reply.former_name:
        print(f"{reply.leader_name} leads already.")
    else:
        print(f"{reply.leader_name} leads now, instead of {reply.former_name}.")
    return EXIT_OK


def _print(reply: control_pb2.RaftStatusReply) -> None:
    names = {member.node_id: member.name for member in reply.members}
    leader = names.get(reply.leader_id, reply.leader_id) or "none"
    print(f"Consensus: {reply.summary}.")
    print(f"Leader:    {leader} (term {reply.term}), as {names.get(reply.asked_id, reply.asked_id)} sees it\n")
    zones = any(member.zone for member in reply.members)
    rows = [_row(member, zones) for member in reply.members]
    headings = [
        "NODE",
        *(["ZONE"] if zones else []),
        "ROLE",
        "VOTE",
        "TERM",
        "HEARD",
        "LAG",
        "REVISION",
        "IF THIS HOST IS LOST",
    ]
    output.print_table(headings, rows)
    for member in reply.members:
        if member.problem:
            output.warn(f"{member.name}: {member.problem}")


def _row(member: control_pb2.RaftMemberView, zones: bool) -> list[str]:
    answered = member.role != "unknown"
    return [
        member.name,
        *([member.zone or "-"] if zones else []),
        member.role,
        "yes" if member.voter else "no",
        str(member.term) if answered else "-",
        _heard(member.last_heard_ms),
        str(member.lag_entries) if member.lag_entries >= 0 else "-",
        str(member.applied_revision) if answered else "-",
        member.if_lost,
    ]


def _heard(milliseconds: int) -> str:
    if milliseconds < 0:
        return "-"
    return "now" if milliseconds < 1000 else f"{words.duration(milliseconds)} ago"
