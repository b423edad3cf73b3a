"""The guard, message by message: each hazard of PySyncObj that it closes is a case here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raft.entry import Entry
from raft.errors import MemberFault
from raft.guard import Verdict, View, examine
from raft.messages import (
    Append,
    AppendReply,
    Message,
    SnapshotChunk,
    SnapshotReply,
    StaleTerm,
    TakeOver,
    Vote,
    VoteRequest,
)


class Log:
    """A log of the given terms; the first entry has index `first_index`."""

    def __init__(self, terms: list[int], first_index: int = 1) -> None:
        self._terms, self.first_index = terms, first_index

    @property
    def last_index(self) -> int:
        return self.first_index + len(self._terms) - 1

    def term_at(self, index: int) -> int | None:
        position = index - self.first_index
        return self._terms[position] if 0 <= position < len(self._terms) else None


def entries(first: int, *terms: int) -> tuple[Entry, ...]:
    return tuple((b"\0x", first + i, term) for i, term in enumerate(terms))


VIEW = View(
    me="a",
    role="follower",
    term=3,
    voted_for=None,
    leader_id="b",
    leader_alive=False,
    voters=frozenset("abc"),
    learners=(),
    votes=(),
    rehearsal_votes=None,
    commit_index=2,
    log=Log([0, 1, 1, 3, 3]),
)
LEADER = replace(VIEW, role="leader", leader_id="a", voted_for="a", leader_alive=True)
CANDIDATE = replace(VIEW, role="candidate", leader_id=None, voted_for="a", votes=frozenset("a"))
ALONE = replace(VIEW, leader_id=None)


def delivered(verdict: Verdict) -> dict[str, Any]:
    assert verdict.deliver is not None
    return verdict.deliver


@pytest.mark.parametrize(
    ("append", "acknowledged"),
    [
        (Append(3, 3, 1, 5, entries(4, 3)), 4),  # an old message again: entry 5 stays
        (Append(3, 2, 1, 5), 2),  # an old heartbeat: entries 3 to 5 stay
        (Append(3, 5, 3, 5), 5),
        (Append(3, 1, 0, 2, entries(2, 1, 1, 3, 3)), 5),
    ],
)
def test_what_the_log_holds_already_is_acknowledged_and_nothing_is_cut(append: Append, acknowledged: int) -> None:
    verdict = examine(VIEW, "b", append)
    assert verdict.replies == (AppendReply(3, acknowledged + 1, success=True, reset=False),)
    assert "prevLogIdx" not in delivered(verdict)
    assert delivered(verdict)["commit_index"] == max(2, min(acknowledged, append.commit_index))


def test_only_what_differs_reaches_pysyncobj() -> None:
    verdict = examine(VIEW, "b", Append(3, 3, 1, 9, entries(4, 3, 3, 3)))
    message = delivered(verdict)
    assert (message["prevLogIdx"], message["prevLogTerm"]) == (5, 3)
    assert [entry[1] for entry in message["entries"]] == [6]


def test_a_conflicting_tail_that_is_not_committed_is_replaced() -> None:
    message = delivered(examine(VIEW, "b", Append(4, 3, 1, 3, entries(4, 4))))
    assert (message["prevLogIdx"], message["prevLogTerm"]) == (3, 1)


@pytest.mark.parametrize("append", [Append(4, 3, 1, 3, entries(4, 4)), Append(4, 4, 2, 3)])
def test_a_leader_that_contradicts_what_is_committed_stops_the_member(append: Append) -> None:
    with pytest.raises(MemberFault, match="forked"):
        examine(replace(VIEW, commit_index=4), "b", append)


@pytest.mark.parametrize(
    ("append", "wanted"),
    [(Append(3, 9, 3, 9), 6), (Append(4, 5, 4, 9), 4), (Append(4, 4, 2, 9, entries(5, 4)), 4)],
)
def test_a_gap_or_conflict_asks_for_the_right_entry_and_commits_nothing(append: Append, wanted: int) -> None:
    verdict = examine(VIEW, "b", append)
    assert verdict.replies == (AppendReply(append.term, wanted, success=False, reset=True),)
    assert delivered(verdict)["commit_index"] == 2


def test_entries_before_the_base_count_as_known() -> None:
    view = replace(VIEW, log=Log([1, 3, 3], first_index=10), commit_index=11)
    verdict = examine(view, "b", Append(3, 5, 1, 20, entries(6, 1, 1, 1, 1, 1, 3, 3, 3)))
    assert (delivered(verdict)["prevLogIdx"], len(delivered(verdict)["entries"])) == (12, 1)
    verdict = examine(view, "b", Append(3, 5, 1, 20, entries(6, 1)))
    assert verdict.replies == (AppendReply(3, 11, success=True, reset=False),)


def test_a_snapshot_chunk_commits_nothing_by_itself() -> None:
    verdict = examine(VIEW, "b", SnapshotChunk(5, 500, 5, 0, b"garbage"))
    assert delivered(verdict) == {
        "type": "append_entries",
        "term": 5,
        "commit_index": 2,
        "serialized": None,
    }


@pytest.mark.parametrize("message", [Append(2, 5, 3, 5), SnapshotChunk(2, 9, 2, 0, b"")])
def test_a_leader_of_an_old_term_learns_the_new_one(message: Message) -> None:
    verdict = examine(VIEW, "b", message)
    assert verdict.deliver is None
    assert verdict.replies == (StaleTerm(3),)
    assert not verdict.from_leader


@pytest.mark.parametrize(("view", "sender"), [(LEADER, "b"), (VIEW, "c")])
def test_a_second_leader_of_one_term_is_not_obeyed(view: View, sender: str) -> None:
    verdict = examine(view, sender, Append(3, 5, 3, 5))
    assert verdict.deliver is None and not verdict.from_leader


@pytest.mark.parametrize(
    ("sender", "reply", "counts"),
    [
        ("b", AppendReply(3, 6, True, False), True),
        ("b", AppendReply(2, 6, True, False), False),  # of an older term
        ("b", AppendReply(4, 6, True, False), False),
        ("b", AppendReply(3, 7, True, False), False),  # beyond the leader's own log
        ("b", AppendReply(3, 0, True, False), False),
        ("z", AppendReply(3, 6, True, False), False),
    ],
)
def test_acknowledgements_count_in_their_own_term_from_members(sender: str, reply: AppendReply, counts: bool) -> None:
    assert examine(LEADER, sender, reply).reply_accepted is counts
    assert not examine(VIEW, sender, reply).reply_accepted


@pytest.mark.parametrize(
    ("view", "sender", "term", "counts"),
    [
        (CANDIDATE, "b", 3, True),
        (replace(CANDIDATE, votes=frozenset("ab")), "b", 3, False),  # twice
        (CANDIDATE, "z", 3, False),  # a stranger
        (CANDIDATE, "b", 2, False),
        (VIEW, "b", 3, False),
        (LEADER, "b", 3, False),
    ],
)
def test_a_vote_counts_once_and_only_from_a_member(view: View, sender: str, term: int, counts: bool) -> None:
    verdict = examine(view, sender, Vote(term))
    assert verdict.vote is counts
    assert (verdict.deliver is not None) is counts


def test_a_live_leader_is_not_deposed_unless_it_asked_for_it() -> None:
    request = VoteRequest(99, 99, 99)
    for view in (LEADER, replace(VIEW, leader_alive=True)):
        for sender in ("b", "removed"):
            assert examine(view, sender, request) == Verdict(dropped="a live leader is heard")
            assert examine(view, sender, replace(request, rehearsal=True)).replies == ()
        assert examine(view, "b", replace(request, handed_over=True)).deliver is not None


@pytest.mark.parametrize(
    ("request_", "granted"),
    [
        (VoteRequest(4, 5, 3, rehearsal=True), True),
        (VoteRequest(4, 4, 3, rehearsal=True), False),  # its log is shorter
        (VoteRequest(4, 9, 2, rehearsal=True), False),  # its log is older
        (VoteRequest(4, 1, 4, rehearsal=True), True),
    ],
)
def test_a_rehearsal_is_answered_and_changes_nothing(request_: VoteRequest, granted: bool) -> None:
    verdict = examine(ALONE, "b", request_)
    assert verdict.deliver is None
    assert verdict.replies == ((Vote(4, rehearsal=True),) if granted else ())


def test_who_rehearses_for_a_term_whose_vote_is_spent_is_told_of_the_term() -> None:
    spent = replace(ALONE, voted_for="c")
    for request in (VoteRequest(3, 9, 3, rehearsal=True), VoteRequest(3, 1, 1, rehearsal=True)):
        assert examine(spent, "b", request).replies == (StaleTerm(3),)
        assert examine(replace(spent, leader_alive=True), "b", request).replies == ()
        assert examine(replace(spent, voted_for="b"), "b", request).replies in ((), (Vote(3, rehearsal=True),))


def test_rehearsal_votes_count_only_while_asked_for() -> None:
    asking = replace(ALONE, rehearsal_votes=frozenset("a"))
    assert examine(asking, "b", Vote(4, rehearsal=True)).rehearsal_vote
    assert not examine(asking, "b", Vote(3, rehearsal=True)).rehearsal_vote
    assert not examine(asking, "z", Vote(4, rehearsal=True)).rehearsal_vote
    assert not examine(ALONE, "b", Vote(4, rehearsal=True)).rehearsal_vote


def test_the_same_candidate_gets_the_same_vote_again_and_no_other_does() -> None:
    voted = replace(ALONE, voted_for="b")
    assert examine(voted, "b", VoteRequest(3, 5, 3)).replies == (Vote(3),)
    assert examine(voted, "c", VoteRequest(3, 5, 3)).replies == ()


def test_a_member_without_membership_votes_for_nobody() -> None:
    verdict = examine(replace(ALONE, voters=frozenset()), "b", VoteRequest(9, 99, 9))
    assert verdict.deliver is None and verdict.replies == ()


@pytest.mark.parametrize(("sender", "term", "obeyed"), [("b", 3, True), ("c", 3, False), ("b", 2, False)])
def test_only_the_present_leader_hands_over(sender: str, term: int, obeyed: bool) -> None:
    assert (examine(VIEW, sender, TakeOver(term)).deliver is not None) is obeyed


def test_a_newer_term_from_a_member_ends_a_leadership() -> None:
    assert examine(LEADER, "b", StaleTerm(7)).newer_term == 7
    assert examine(LEADER, "b", StaleTerm(3)).newer_term == 0
    assert examine(LEADER, "z", StaleTerm(7)).newer_term == 0


@pytest.mark.parametrize("reply", [AppendReply(3, 6, True, False, 1, 8), SnapshotReply(3, 5, 100, 1, 8)])
def test_what_a_log_that_began_anew_acknowledges_is_not_that_of_the_voter(reply: AppendReply | SnapshotReply) -> None:
    leader = replace(LEADER, log_ids={"a": 5, "b": 7, "c": 0})
    verdict = examine(leader, "b", reply)
    assert verdict.lost_log
    assert not verdict.reply_accepted
    assert verdict.deliver is None
    assert examine(leader, "b", replace(reply, log_id=7)).reply_accepted
    assert examine(leader, "c", reply).reply_accepted  # nothing is known of the log that c has


@pytest.mark.parametrize("rehearsal", [False, True])
def test_a_member_gives_no_vote_of_a_log_that_it_lost(rehearsal: bool) -> None:
    member = replace(ALONE, log_id=8)
    request = VoteRequest(4, 5, 3, rehearsal, log_id=8)
    granted = examine(member, "c", request)
    assert granted.deliver or granted.replies
    refused = examine(member, "c", replace(request, log_id=7))
    assert (refused.deliver, refused.replies) == (None, ())


def test_a_log_that_began_anew_does_not_take_over() -> None:
    member = replace(VIEW, log_id=8, log_ids={"a": 7, "b": 1, "c": 2})
    assert examine(member, "b", TakeOver(3)).deliver is None
    assert examine(replace(member, log_id=7), "b", TakeOver(3)).deliver is not None
