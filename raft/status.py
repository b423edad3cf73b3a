"""What a member says of itself: role, term, leader, progress, who was heard when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["leader", "follower", "candidate", "learner", "stopped"]


@dataclass(frozen=True)
class PeerStatus:
    """Another member as this one sees it."""

    node_id: str
    last_heard_ms: int  # milliseconds ago; -1: not since this member started
    lag_entries: int  # log entries it has not acknowledged; -1 where this member does not lead
    connected: bool


@dataclass(frozen=True)
class RaftStatus:
    """One member at one moment."""

    role: Role = "stopped"
    term: int = 0
    leader_id: str | None = None
    commit_index: int = 0
    applied_revision: int = 0
    quorum: bool = False  # it leads and heard a majority recently, or it follows a live leader
    voters: tuple[str, ...] = ()
    peers: tuple[PeerStatus, ...] = ()
    last_leader_heard: float = 0.0  # time.monotonic() seconds; 0: never
    lost_logs: tuple[str, ...] = ()  # voters that have lost their disk, as a leader sees it: remove and add them again
    error: str = ""  # why it stopped taking part; empty while all is well

    def gist(self) -> tuple[object, ...]:
        """What `role_changes` reports: it compares equal while nothing of importance changed."""
        return (self.role, self.term, self.leader_id, self.quorum, self.voters, self.error)
