"""One simulated host: its disk and clock outlive power cuts, its driver does not."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from raft.driver import Driver
from raft.messages import Message
from raft.requests import Asked
from raft.rules import Rules
from raft.settings import Peer, RaftSettings
from raft.simulation.clock import Clock
from raft.simulation.disk import Disk

NEVER = float("inf")


@dataclass(eq=False)
class SimulatedMember:
    """`driver` is None while the host is down; what arrives then is lost."""

    name: str
    settings: RaftSettings
    disk: Disk
    clock: Clock
    random: random.Random
    rules: Rules
    driver: Driver | None = None
    life: int = 0  # counts the starts
    inbox: list[tuple[str, Message]] = field(default_factory=list)
    ways: list[tuple[str, bool]] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    busy_until: float = 0.0
    turn_at: float = NEVER
    slow_until: float = 0.0  # of its disk
    slow_seconds: float = 0.0
    sluggish_until: float = 0.0  # the whole of it: every turn takes longer
    sluggish_seconds: float = 0.0
    sent_early: int = 0  # messages of this turn that left before its write
    cut_in_send: int = -1  # the power goes after so many messages of a turn; -1: not
    dark_seconds: float = 0.5  # how long it stays down after a cut in a write
    commit_seen: int = 1
    applied_seen: int = 0
    membership_seen: tuple[Peer, ...] = ()  # at the end of its last turn
    told: object = None  # what was last said of it with --show
    log_id: int = 0  # of the log on its disk
    lost_logs: dict[int, dict[int, int]] = field(default_factory=dict)  # those of disks that it lost, by log id
    _log: dict[int, int] = field(default_factory=dict)  # on disk, while it is down

    def start(self, now: float) -> Driver:
        """Loads the state as a daemon does. MemberFault where that is damaged."""
        driver = Driver(self.settings, self.disk.database, self.clock.read(now), self.random.random, self.rules)
        self.driver = driver
        self.life += 1
        self.log_id = driver.journal.log_id
        self.commit_seen = driver.journal.first_index
        self.applied_seen = 0
        self.membership_seen = driver.journal.membership
        self.busy_until = now
        return driver

    def stop(self) -> None:
        """The driver is gone, and with it all that was not on the disk."""
        self.driver = None
        self.life += 1
        self.turn_at = NEVER
        self.cut_in_send = -1
        self.inbox.clear()
        self.ways.clear()
        self.requests.clear()
        self._log = self.disk.log()

    def lose_disk(self) -> None:
        """While it is down: the next start finds an empty disk."""
        self.lost_logs[self.log_id], self._log = self._log, {}
        self.log_id = 0
        self.disk.lose_all()

    def holds(self, index: int, term: int, log_id: int) -> bool:
        """Whether a restart now would find this entry, in log or store; or in that log before it was lost."""
        if log_id != self.log_id:
            lost = self.lost_logs.get(log_id, {})
            return bool(lost) and (index < min(lost) or lost.get(index) == term)
        if self.driver is not None:
            journal = self.driver.journal
            return index < journal.first_index or journal.term_at(index) == term
        return bool(self._log) and (index < min(self._log) or self._log.get(index) == term)
