"""What must hold at every moment of a run; Violation as soon as something does not."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft.driver import Driver, Turn
from raft.entry import TRANSACTION
from raft.features import level_of
from raft.messages import Vote
from raft.settings import Peer
from raft.simulation.clients import Attempt, Probe
from raft.simulation.member import SimulatedMember
from raft.store import Store

Digest = tuple[tuple[str, int, str], ...]


class Violation(Exception):
    """A promise of consensus was broken."""


class Checks:
    """Sees every turn of every member after it became durable and before anything of it is sent."""

    def __init__(self, members: dict[str, SimulatedMember], corruption: bool) -> None:
        self.committed: dict[int, tuple[int, bytes]] = {1: (0, b"\x01")}
        self.commit_index = 1  # the newest of all members
        self.leaders: dict[int, str] = {}
        self.acknowledged = 0
        self._members, self._corruption = members, corruption
        self._votes: dict[tuple[int, str, int], str] = {}  # for whom, by term, member and its log
        self._reference = Store()
        self._reference_index = 1
        self._digests: dict[int, Digest] = {1: ()}
        self._effects: dict[str, int] = {}

    def after_turn(self, member: SimulatedMember, driver: Driver, turn: Turn) -> None:
        """All that one turn could have broken."""
        consensus = driver.consensus
        algorithm = consensus.algorithm
        if consensus.leads:
            self._leader(member.name, driver)
            self._acknowledgements(member.name, driver)
        commit = algorithm.commit_index()
        if commit > member.commit_seen or turn.restored:
            self._commits(member, driver, commit)
        member.membership_seen = driver.journal.membership
        if algorithm.applied_index() != member.applied_seen or turn.restored:
            self.applied(member, driver)
        for receiver, message in turn.outbox:
            if isinstance(message, Vote):
                self._vote(member.name, driver, receiver, message)
        for ticket, outcome in turn.answers:
            if isinstance(outcome, TransactionResult):
                self._answered(ticket, outcome, algorithm.applied_index())
            elif outcome is None and isinstance(ticket, Probe) and algorithm.applied_index() < ticket.committed_before:
                raise Violation(
                    f"{member.name} answered a current read as of entry {algorithm.applied_index()}; when it was asked "
                    f"{ticket.committed_before} was committed"
                )
        if consensus.snapshots_refused and not self._corruption:
            raise Violation(f"{member.name} refused a snapshot that nobody had damaged")
        if driver.journal.dirty and "persist-before-send" in member.rules:
            raise Violation(f"{member.name} ended a turn with something that is not on its disk")

    def after_failed_turn(self, member: SimulatedMember, driver: Driver) -> None:
        """A fault ended the turn and the member is down: what had it committed of what its disk has?

        Nobody was told, but the next start may know it, when the membership may be another.
        """
        journal, commit = driver.journal, driver.consensus.algorithm.commit_index()
        while commit > member.commit_seen:
            term = journal.term_at(commit)
            if term is not None and member.holds(commit, term, journal.log_id):
                self._commits(member, driver, commit)
                return
            commit -= 1

    def applied(self, member: SimulatedMember, driver: Driver) -> None:
        """The member's store is what the committed entries make of it."""
        index = driver.consensus.algorithm.applied_index()
        if index < member.applied_seen:
            raise Violation(f"{member.name} went back from applied entry {member.applied_seen} to {index}")
        member.applied_seen = index
        if (used := level_of(driver.store)) > member.settings.feature_level:
            raise Violation(f"{member.name} goes on at feature level {used} with a build that does not know it")
        self._replay()
        wanted = self._digests.get(index)
        if wanted is None:
            raise Violation(f"{member.name} applied entry {index}, which nobody had committed")
        found = _digest(driver.store)
        if found != wanted:
            raise Violation(f"{member.name} after entry {index} has {found}, the committed log makes {wanted}")

    # ---- each promise -------------------------------------------------------------------------

    def _leader(self, name: str, driver: Driver) -> None:
        term = driver.consensus.algorithm.term()
        if self.leaders.get(term) == name:
            return
        if term in self.leaders:
            raise Violation(f"two leaders in term {term}: {self.leaders[term]} and {name}")
        self.leaders[term] = name
        voters = driver.consensus.voters
        given = {one for one in voters if self._votes.get((term, one, driver.consensus.log_ids[one])) == name} | {name}
        if 2 * len(given) <= len(voters):
            raise Violation(f"{name} leads term {term} by the votes of {sorted(given)} out of {sorted(voters)}")
        newest, _ = self.committed[self.commit_index]
        journal = driver.journal
        if newest > term:
            return  # elected by late votes when another leads already; it can commit nothing
        if self.commit_index >= journal.first_index and journal.term_at(self.commit_index) != newest:
            raise Violation(f"{name} leads term {term} without the committed entry {self.commit_index}")

    def _acknowledgements(self, name: str, driver: Driver) -> None:
        """What a leader believes to be on another disk is there, unless a newer leader had it replaced."""
        algorithm, journal = driver.consensus.algorithm, driver.journal
        for other in driver.consensus.voters:
            if other == name:
                continue
            matched, follower = algorithm.match_index(other), self._members[other].driver
            term = journal.term_at(matched)
            if term is None or follower is None or follower.consensus.algorithm.term() > algorithm.term():
                continue
            if not self._members[other].holds(matched, term, driver.consensus.log_ids[other]):
                raise Violation(f"{name} believes that {other} has entry {matched} of term {term}, which it has not")

    def _commits(self, member: SimulatedMember, driver: Driver, commit: int) -> None:
        journal = driver.journal
        for index in range(max(member.commit_seen + 1, journal.first_index + 1), commit + 1):
            command, _, term = journal.entries(index, 1)[0]
            known = self.committed.setdefault(index, (term, command))
            if known != (term, command):
                raise Violation(f"{member.name} committed another entry {index} (term {term}) than term {known[0]}'s")
        member.commit_seen = commit
        if commit <= self.commit_index:
            return
        if commit not in self.committed:
            raise Violation(f"{member.name} says that {commit} is committed, which no leader had committed")
        term, _ = self.committed[commit]
        # A leader may have committed and then begun a change of the membership in the same turn.
        memberships = (member.membership_seen or journal.membership, journal.membership)
        if not any(self._majority_holds(membership, commit, term) for membership in memberships):
            voters = [peer.node_id for peer in journal.membership]
            holders = [one.node_id for one in journal.membership if self._holds(one, commit, term)]
            raise Violation(f"{member.name} committed entry {commit} that only {holders} of {voters} have on disk")
        self.commit_index = commit

    def _majority_holds(self, membership: tuple[Peer, ...], index: int, term: int) -> bool:
        return 2 * sum(self._holds(peer, index, term) for peer in membership) > len(membership)

    def _holds(self, peer: Peer, index: int, term: int) -> bool:
        return self._members[peer.node_id].holds(index, term, peer.log_id)

    def _vote(self, name: str, driver: Driver, receiver: str, vote: Vote) -> None:
        if vote.rehearsal:
            return
        if not driver.journal.membership:
            raise Violation(f"{name} voted for {receiver} in term {vote.term} and knows no membership")
        first = self._votes.setdefault((vote.term, name, driver.journal.log_id), receiver)
        if first != receiver or self.leaders.get(vote.term) == name:
            raise Violation(f"{name} voted twice in term {vote.term}: for {first} and for {receiver}")

    def _answered(self, ticket: object, outcome: TransactionResult, applied: int) -> None:
        self.acknowledged += 1
        request_id = ticket.request_id if isinstance(ticket, Attempt) else str(ticket)
        if outcome.revision > applied:
            raise Violation(f"{request_id} was answered with revision {outcome.revision} before it was applied")
        if outcome.code == TransactionResult.OK and self._effects.get(request_id) != outcome.revision:
            raise Violation(
                f"{request_id} was acknowledged at {outcome.revision}, but in the committed log its effect is at "
                f"{self._effects.get(request_id)}"
            )

    def _replay(self) -> None:
        while (following := self._reference_index + 1) in self.committed:
            _, command = self.committed[following]
            if command[0] == TRANSACTION:
                self._replay_one(command, following)
            self._reference_index = following
            self._digests[following] = self._digests.get(following) or self._digests[following - 1]

    def _replay_one(self, command: bytes, index: int) -> None:
        try:
            transaction = Transaction.FromString(command[1:])
        except DecodeError:
            return
        _, changes = self._reference.apply(transaction, index)
        if changes:
            if transaction.request_id in self._effects:
                raise Violation(f"{transaction.request_id} had an effect twice: the last time at {index}")
            self._effects[transaction.request_id] = index
            self._digests[index] = _digest(self._reference)


def _digest(store: Store) -> Digest:
    """All of a store that the simulated clients use: ids, versions and values."""
    found = [(one.meta.id, one.meta.version, one.description[:40]) for one in store.table(objects.Tenant)]
    return tuple(sorted(found))
