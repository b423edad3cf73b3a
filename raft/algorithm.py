"""PySyncObj 0.3.17 without its threads, sockets, pickles, dumps and replication.

What remains of it, and is its own: terms and roles, campaigning, counting votes, granting votes, accepting
entries behind the guard, the rule by which a leader commits, stepping down without a majority. Names with
the prefix `_SyncObj__` are its private ones: the version is pinned exactly because of them.

Overridden, and why:
- sending entries: it sends a lagging member the whole log at once and cuts large entries into pieces that
  its receiver joins wrongly (raft/replication.py does it with a window);
- applying: it applies before anything is on disk and stops for good at an entry that raises (the driver
  applies, after the turn is durable);
- dumps and membership: they are pickles of its own objects (raft/snapshot.py, raft/entry.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import pysyncobj.syncobj
from pysyncobj.node import Node
from pysyncobj.syncobj import _RAFT_STATE, SyncObj, SyncObjConf
from pysyncobj.transport import Transport

from raft.ambient import ambient
from raft.errors import MemberFault
from raft.guard import PySyncObjMessage
from raft.journal import Journal
from raft.settings import RaftSettings

Send = Callable[[str, PySyncObjMessage], None]

_ROLES = {_RAFT_STATE.FOLLOWER: "follower", _RAFT_STATE.CANDIDATE: "candidate", _RAFT_STATE.LEADER: "leader"}
LONG_AGO = float("-inf")


class _Member(Node):  # type: ignore[misc]
    """PySyncObj looks members up dozens of times a message: one object each, compared by identity, without Python."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


@functools.cache  # of the cluster's own members: nobody else is handed to PySyncObj
def node_of(member: str) -> Node:
    """PySyncObj's name for a member, always the same object."""
    return _Member(member)


class _Outbox(Transport):  # type: ignore[misc]
    """PySyncObj's way out: messages to whom, nothing else."""

    def __init__(self, send: Send) -> None:
        super().__init__(None, None, [])
        self._send = send

    def send(self, node: Node, message: PySyncObjMessage) -> bool:
        self._send(node.id, message)
        return True


class _NoPoller:
    def poll(self, _timeout: float) -> None:
        """There are no sockets of PySyncObj's."""


class Algorithm(SyncObj):  # type: ignore[misc]
    """One member's consensus state machine. Every call runs within `ambient(now, random)`."""

    def __init__(self, settings: RaftSettings, journal: Journal, applied_index: int, send: Send) -> None:
        self._outbox = _Outbox(send)
        self._replicate: Callable[[], None] = lambda: None
        configuration = SyncObjConf(
            autoTick=False,
            raftMinTimeout=settings.election_ms_min / 1000,
            raftMaxTimeout=settings.election_ms_max / 1000,
            appendEntriesPeriod=settings.heartbeat_ms / 1000,
            leaderFallbackTimeout=settings.leader_silence_ms_max / 1000,
            connectionTimeout=settings.election_ms_max / 1000,
        )
        super().__init__(node_of(settings.node_id), [], conf=configuration, transport=self._outbox)
        self._poller = _NoPoller()
        # What its constructor read from the empty log that it made for itself:
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        self._SyncObj__raftCommitIndex = max(journal.getRaftCommitIndex(), applied_index)
        journal.setRaftCommitIndex(self._SyncObj__raftCommitIndex)
        self._SyncObj__raftLastApplied = applied_index

    # ---- overridden pieces of PySyncObj ---------------------------------------------------------

    def _SyncObj__sendAppendEntries(self) -> None:
        period = self._SyncObj__conf.appendEntriesPeriod
        self._SyncObj__newAppendEntriesTime = pysyncobj.syncobj.monotonicTime() + period
        self._replicate()

    def _SyncObj__applyLogEntries(self) -> bool:
        return False

    def _SyncObj__tryLogCompaction(self) -> None:
        return None

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise MemberFault("PySyncObj wanted to load a dump of its own")

    def _checkCommandsToApply(self) -> None:
        return None

    # ---- reading --------------------------------------------------------------------------------

    def role(self) -> Any:
        """ "leader", "candidate" or "follower"."""
        return _ROLES[self._SyncObj__raftState]

    def leads(self) -> bool:
        return bool(self._SyncObj__raftState == _RAFT_STATE.LEADER)

    def leader_id(self) -> str | None:
        leader = self._SyncObj__raftLeader
        return leader.id if leader is not None else None

    def voted_for(self) -> str | None:
        voted: str | None = self._SyncObj__votedForNodeId
        return voted

    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    def commit_index(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    def noop_index(self) -> int:
        """Index of this leader's first entry: once it is committed so is all before it."""
        return int(self._SyncObj__noopIDx or 0)

    def election_at(self) -> float:
        return float(self._SyncObj__raftElectionDeadline)

    def heartbeat_at(self) -> float:
        return float(self._SyncObj__newAppendEntriesTime)

    def handed_over(self) -> bool:
        """Whether the leader asked this member to campaign."""
        return bool(self._SyncObj__transferInProgress)

    def next_index(self, member: str) -> int:
        return int(self._SyncObj__raftNextIndex[node_of(member)])

    def match_index(self, member: str) -> int:
        return int(self._SyncObj__raftMatchIndex.get(node_of(member), 0))

    def heard_at(self, member: str) -> float:
        return float(self._SyncObj__lastResponseTime.get(node_of(member), LONG_AGO))

    # ---- changing -------------------------------------------------------------------------------

    def on_replicate(self, replicate: Callable[[], None]) -> None:
        """`replicate` is called whenever every member is due a message."""
        self._replicate = replicate

    def receive(self, sender: str, message: PySyncObjMessage) -> None:
        """Hands over a message that the guard has passed."""
        self._outbox._onMessageReceived(node_of(sender), message)

    def connected(self, member: str, up: bool) -> None:
        (self._outbox._onNodeConnected if up else self._outbox._onNodeDisconnected)(node_of(member))

    def is_connected(self, member: str) -> bool:
        return node_of(member) in self._SyncObj__connectedNodes

    def campaign(self) -> None:
        """The next tick begins an election."""
        self._SyncObj__raftElectionDeadline = LONG_AGO

    def postpone_election(self, now: float) -> None:
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()

    def forget_leader(self) -> None:
        self._SyncObj__raftLeader = None

    def step_down(self, term: int) -> None:
        """A newer term exists: follow whoever leads it."""
        if term > self.term():
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_RAFT_STATE.FOLLOWER)
        self._SyncObj__raftLeader = None

    def append(self, command: bytes) -> int:
        """Adds a command of this leader's; returns its index."""
        journal: Journal = self._SyncObj__raftLog
        index = journal.last_index + 1
        journal.add(command, index, self.term())
        return index

    def set_next_index(self, member: str, index: int) -> None:
        self._SyncObj__raftNextIndex[node_of(member)] = index

    def lower_match_index(self, member: str, index: int) -> None:
        """The member says that it lacks what it once acknowledged: believe it, commits never go back."""
        matched = self._SyncObj__raftMatchIndex
        matched[node_of(member)] = min(matched.get(node_of(member), 0), index)

    def heard(self, member: str, now: float) -> None:
        self._SyncObj__lastResponseTime[node_of(member)] = now

    def applied(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    def restarted(self, index: int) -> None:
        """A snapshot up to `index` replaced log and state."""
        self._SyncObj__raftLastApplied = self._SyncObj__raftCommitIndex = index

    def committed(self, index: int) -> None:
        """Everything to `index` is known to be committed and is in the log."""
        if index > self.commit_index():
            self._SyncObj__raftCommitIndex = index
            self._SyncObj__raftLog.setRaftCommitIndex(index)

    def set_members(self, voters: Collection[str], learners: Collection[str], now: float) -> None:
        """Who else votes and who only follows; keeps what is known of those that stay."""
        others = {node_of(one) for one in voters if one != self.selfNode.id}
        readers = {node_of(one) for one in learners} - others - {self.selfNode}
        next_index, match_index = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex
        last = self._SyncObj__raftLog.last_index
        for node in others | readers:
            next_index.setdefault(node, last + 1)
            match_index.setdefault(node, 0)
            self._SyncObj__lastResponseTime.setdefault(node, now)
        for node in set(next_index) - others - readers:
            del next_index[node]
            match_index.pop(node, None)
            self._SyncObj__lastResponseTime.pop(node, None)
        self._SyncObj__otherNodes = others
        self._SyncObj__readonlyNodes = readers


def tick(algorithm: Algorithm, now: float, random: Callable[[], float]) -> None:
    """One pass of PySyncObj over its timers."""
    with ambient(now, random):
        algorithm.doTick(0)
