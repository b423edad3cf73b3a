"""Replays tests/raft/scenarios/*.txt: one member, and line by line what it hears, when, and what must come of it.

    rule NAME                     the guard rule that this is about; without it the scenario must fail
    member a of a b c             a's disk holds a log of two entries, the second makes these the voters in term 1
    newcomer a                    a's disk is empty
    build level N                 the feature level that the member's software knows (raft/features.py)
    disk term=3 voted=b log=1,3   its term, its vote, and the terms of further entries (index 3 and on), all committed
                                  up to commit=N
    disk loses log after N        and nothing else
    disk is lost                  all of it, and an empty one is in its place
    power goes in the write       of the next turn; what that turn sent before is what was sent
    start, restart                the daemon starts; again after a power cut
    tick SECONDS                  time passes
    from b: MESSAGE               b says something
    ask write ID VALUE            a client does: read, write, poison (bytes that are no command), large (BYTES);
                                  the operator: follow NAME (a member without a vote gets the log),
                                  add NAME (give it a vote), remove NAME (a voter)
    expect WHAT                   log TERMS | base N | term N | commit N | applied N | role ROLE | value ID VALUE
    expect sent b: MESSAGE        in the turn before; of a message only what is written is compared
    expect not sent b: KIND       nothing of that kind
    expect answer WHAT            ok, conflict, invalid, none, or the name of the refusal
    expect refused TEXT           instead of a start or a turn: the fault whose text contains this

A MESSAGE is its kind and fields: "append term=2 previous=3/1 commit=3 entries=2,2", where a pair is index/term and
entries are their terms ("level=2": that feature level is needed to apply them). "snapshot term=5 at=9/5 piece=2/3" is
a piece of a snapshot that the runner makes, "damaged" flips a bit of it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft import messages
from raft.driver import Driver, Outbox, Turn
from raft.entry import TRANSACTION, Entry, transaction_command
from raft.errors import MemberFault
from raft.features import LevelUnknown
from raft.journal import Journal
from raft.messages import Message
from raft.requests import AddVoter, Follow, Propose, ReadBarrier, RemoveVoter, Request
from raft.rules import ALL_RULES, Rules
from raft.settings import RaftSettings
from raft.simulation.disk import NOWHERE, Disk, PowerCut, form, formed, peers
from raft.snapshot import Outgoing, Snapshot
from raft.transaction import TransactionBuilder

KINDS: dict[str, type[Any]] = {
    "append": messages.Append,
    "append-reply": messages.AppendReply,
    "vote-request": messages.VoteRequest,
    "vote": messages.Vote,
    "take-over": messages.TakeOver,
    "stale-term": messages.StaleTerm,
    "snapshot": messages.SnapshotChunk,
    "snapshot-reply": messages.SnapshotReply,
}
FIELDS = {
    "log": "log_id",
    "next": "next_index",
    "commit": "commit_index",
    "offset": "offset_bytes",
    "handed-over": "handed_over",
}
FLAGS = ("success", "reset", "rehearsal", "handed-over", "damaged")


class Failed(AssertionError):
    """The scenario did not go as written."""


@dataclass
class Replay:
    """State while a scenario is replayed."""

    rules: Rules = ALL_RULES
    disk: Disk = field(default_factory=lambda: Disk(formed(0)))
    settings: RaftSettings = field(default_factory=lambda: RaftSettings(NOWHERE, "a", "", 1))
    now: float = 100.0
    driver: Driver | None = None
    turn: Turn = field(default_factory=Turn)
    answers: list[object] = field(default_factory=list)
    refused: str = ""
    members: tuple[str, ...] = ()
    asked: int = 0

    def line(self, text: str) -> None:
        """Carries out one line; Failed where it says something that is not so."""
        match text.split():
            case ["rule", _]:
                return
            case ["member", name, "of", *members]:
                self.settings = replace(self.settings, node_id=name)
                self.members = tuple(members)
                with_log = sqlite3.connect(":memory:", isolation_level=None)
                with_log.deserialize(formed(0))
                form(with_log, len(members), name)
                self.disk = Disk(with_log.serialize())
            case ["build", "level", known]:
                self.settings = replace(self.settings, feature_level=int(known))
            case ["newcomer", name]:
                self.settings = replace(self.settings, node_id=name)
            case ["disk", "is", "lost"]:
                self.disk.lose_all()
            case ["disk", "loses", "log", "after", index]:
                self.disk.execute("delete from raft_log where log_index > ?", (int(index),))
            case ["disk", *fields]:
                self._write_disk(_fields(fields))
            case ["power", "goes", "in", "the", "write"]:
                self.disk.cut_in_statements = 1
            case ["start" | "restart"]:
                self._start()
            case ["tick", seconds]:
                self.now += float(seconds)
                self._take_turn()
            case ["from", sender, *words]:
                assert self.driver is not None
                name = sender.rstrip(":")
                self.driver.deliver(name, _message(words, name), self.now)
                self._take_turn()
            case ["ask", *words]:
                assert self.driver is not None
                self.driver.request(self._request(words))
                self._take_turn()
            case ["expect", *words]:
                self._expect(words)
            case _:
                raise ValueError(f"a line that nobody understands: {text!r}")

    # ---- what happens -------------------------------------------------------------------------

    def _write_disk(self, fields: dict[str, str]) -> None:
        journal = Journal(self.disk.database)
        terms = [int(term) for term in fields.get("log", "").split(",") if term]
        for entry in entries_of(journal.last_index + 1, terms):
            journal.add(*entry)
        journal.setCurrentTerm(int(fields.get("term", max([1, *terms]))), None)
        if "voted" in fields:
            journal.setCurrentTerm(journal.getCurrentTerm(), fields["voted"])
        journal.setRaftCommitIndex(int(fields.get("commit", 2)))
        self.disk.execute("begin")
        journal.flush(with_commit=True)
        self.disk.execute("commit")

    def _start(self) -> None:
        self.disk.lose_power()
        self.driver, self.refused = None, ""
        try:
            self.driver = Driver(self.settings, self.disk.database, self.now, lambda: 0.5, self.rules)
        except MemberFault as fault:
            self.refused = str(fault)
            return
        for member in self.members:
            if member != self.settings.node_id:
                self.driver.connected(member, True)
        self._take_turn()

    def _take_turn(self) -> None:
        assert self.driver is not None, f"the member does not run: {self.refused}"
        self.turn = Turn()
        outbox: Outbox = []
        try:
            self.turn = self.driver.turn(self.now, outbox.extend)
        except PowerCut:
            self.driver, self.turn.outbox = None, outbox
            return
        except LevelUnknown as fault:
            self.driver, self.refused = None, str(fault)
            return
        answers = self.turn.answers
        # A turn may leave work for the next one at once: committed entries are applied a turn later.
        more = self.driver.turn(self.now)
        self.answers = [outcome for _, outcome in [*answers, *more.answers]]
        self.turn.outbox = [*outbox, *more.outbox]

    def _request(self, words: list[str]) -> Request:
        assert self.driver is not None
        self.asked += 1
        match words:
            case ["follow", name]:
                self.driver.connected(name, True)
                return Follow("follow", peers((name,))[0], wanted=True)
            case ["add", name]:
                return AddVoter("add", peers((name,))[0])
            case ["remove", name]:
                return RemoveVoter("remove", name)
            case ["read"]:
                return ReadBarrier("read")
            case ["poison"]:
                return Propose("poison", bytes([TRANSACTION]) + b"\xff")
            case ["large", size]:
                return Propose("large", _write("large", "x" * int(size), f"request{self.asked}"))
            case ["write", identifier, value, *again]:
                return Propose("write", _write(identifier, value, again[0] if again else f"request{self.asked}"))
            case _:
                raise ValueError(f"nobody can ask {words}")

    # ---- what must be -------------------------------------------------------------------------

    def _expect(self, words: list[str]) -> None:
        match words:
            case ["refused", *text]:
                self._same("refused", " ".join(text) in self.refused and bool(self.refused), True)
            case ["sent", receiver, *message]:
                sent = [one for to, one in self.turn.outbox if to == receiver.rstrip(":")]
                if not any(_fits(one, message) for one in sent):
                    raise Failed(f"not sent to {receiver} {' '.join(message)}; but {sent}")
            case ["not", "sent", receiver, *message]:
                sent = [one for to, one in self.turn.outbox if to == receiver.rstrip(":")]
                if any(_fits(one, message) for one in sent):
                    raise Failed(f"sent to {receiver} {' '.join(message)}")
            case ["answer", wanted]:
                self._same("answers", wanted in [_outcome(one) for one in self.answers], True)
            case ["no", "answer"]:
                self._same("answers", [_outcome(one) for one in self.answers], [])
            case ["value", identifier, value]:
                assert self.driver is not None
                stored = self.driver.store.get(objects.Tenant, identifier)
                self._same(identifier, stored.description if stored is not None else "", value)
            case ["log", *terms]:
                assert self.driver is not None
                journal = self.driver.journal
                found = [str(entry[2]) for entry in journal.entries(journal.first_index, 10**6)]
                self._same("log", found, terms)
            case [what, wanted]:
                self._same(what, str(self._number(what)), wanted)
            case _:
                raise ValueError(f"nobody understands what is expected: {words}")

    def _number(self, what: str) -> object:
        assert self.driver is not None, f"the member does not run: {self.refused}"
        algorithm = self.driver.consensus.algorithm
        found: dict[str, object] = {
            "term": algorithm.term(),
            "commit": algorithm.commit_index(),
            "applied": algorithm.applied_index(),
            "role": self.driver.consensus.role(),
            "base": self.driver.journal.first_index,
        }
        return found[what]

    @staticmethod
    def _same(what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise Failed(f"{what}: expected {wanted}, found {found}")


def rule_of(path: Path) -> str | None:
    """The guard rule that a scenario names."""
    rules = [line.split()[1] for line in _lines(path) if line.startswith("rule ")]
    return rules[0] if rules else None


def replay(path: Path, rules: Rules = ALL_RULES) -> None:
    """Replays a file; Failed, with the line, where it does not go as written."""
    state = Replay(rules)
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = line.split("#")[0].strip()
            if text:
                try:
                    state.line(text)
                except Failed as failed:
                    raise Failed(f"{path.name}:{number}: {line.strip()}: {failed}") from failed
    finally:
        state.disk.close()


def _lines(path: Path) -> list[str]:
    return [line.split("#")[0].strip() for line in path.read_text().splitlines()]


def _fields(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _message(words: list[str], sender: str) -> Message:
    kind, given = words[0], _fields(words[1:])
    term = int(given.pop("term"))
    if kind == "snapshot":
        return _piece(term, given, "damaged" in words)
    values: dict[str, Any] = {"term": term}
    if kind == "append":
        previous_index, previous_term = given.pop("previous").split("/")
        terms = [int(one) for one in given.pop("entries", "").split(",") if one]
        values |= {"previous_index": int(previous_index), "previous_term": int(previous_term)}
        values["entries"] = tuple(entries_of(int(previous_index) + 1, terms, int(given.pop("level", 1))))
    elif kind == "vote-request":
        last_index, last_term = given.pop("last").split("/")
        values |= {"last_log_index": int(last_index), "last_log_term": int(last_term)}
    elif kind == "append-reply":
        values |= {"success": "success" in words, "reset": "reset" in words}
    if kind in ("append-reply", "snapshot-reply"):
        values["log_id"] = ord(sender)  # of the log that the cluster was formed with (raft/simulation/disk.py)
    values |= {FIELDS.get(name, name): int(value) for name, value in given.items()}
    values |= {FIELDS.get(flag, flag): True for flag in FLAGS if flag in words}
    message: Message = KINDS[kind](**values)
    return message


def _piece(term: int, given: dict[str, str], damaged: bool) -> Message:
    """Piece i of n of a snapshot in which every register is the index of the entry that wrote it."""
    index, last_term = (int(part) for part in given["at"].split("/"))
    number, count = (int(part) for part in given["piece"].split("/"))
    stored = [objects.Tenant(meta=objects.Meta(id=f"e{i}", name=f"e{i}", version=i)) for i in range(3, index + 1)]
    listing = [("tenants", one) for one in stored]
    snapshot = Snapshot(index, last_term, index, peers("abc"), list(listing), [])
    size = sum(one.ByteSize() + 20 for one in stored)
    outgoing = Outgoing(snapshot, size // count + 1)
    pieces = [outgoing.piece]
    while outgoing.advance(outgoing.piece.offset_bytes + len(outgoing.piece.data)):
        pieces.append(outgoing.piece)
    merged = pieces[number - 1] if number < count else pieces[-1]
    assert len(pieces) == count, f"a snapshot of {len(pieces)} pieces, write so"
    data = merged.data[:-1] + bytes([merged.data[-1] ^ 1]) if damaged else merged.data
    return messages.SnapshotChunk(term, index, last_term, merged.offset_bytes, data, merged.sha256, 1)


def entries_of(first: int, terms: list[int], level: int = 1) -> list[Entry]:
    return [
        (_write(f"e{first + i}", str(term), f"e{first + i}.{term}", level), first + i, term)
        for i, term in enumerate(terms)
    ]


def _write(identifier: str, value: str, request_id: str, level: int = 1) -> bytes:
    wanted = objects.Tenant(meta=objects.Meta(id=identifier, name=identifier), description=value)
    return transaction_command(TransactionBuilder().put(wanted).needs(level).build(request_id, "scenario", 1))


def _fits(message: Message, words: list[str]) -> bool:
    if not isinstance(message, KINDS[words[0]]):
        return False
    for name, value in _fields(words[1:]).items():
        if name == "entries":
            found = ",".join(str(entry[2]) for entry in getattr(message, "entries", ()))
        else:
            found = str(getattr(message, FIELDS.get(name, name)))
        if found != value:
            return False
    wanted = {flag: flag in words for flag in FLAGS if hasattr(message, FIELDS.get(flag, flag))}
    return all(getattr(message, FIELDS.get(flag, flag)) == there for flag, there in wanted.items())


def _outcome(outcome: object) -> str:
    if outcome is None:
        return "none"
    if isinstance(outcome, TransactionResult):
        return TransactionResult.Code.Name(outcome.code).lower()
    return type(outcome).__name__
