"""A cluster in simulated time: members take their turns as raft/worker.py gives them, messages travel between."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from raft.driver import Driver, Outbox, Turn
from raft.errors import DiskFull, MemberFault
from raft.features import FEATURE_LEVEL, LevelUnknown
from raft.messages import Append, Message, Vote, VoteRequest
from raft.requests import Asked, ProposeChain
from raft.rules import ALL_RULES, Rules
from raft.settings import Peer, RaftSettings
from raft.simulation.checks import Checks, Violation
from raft.simulation.clients import Attempt, Probe, register_of
from raft.simulation.clock import Clock
from raft.simulation.disk import NOWHERE, Disk, PowerCut, formed
from raft.simulation.events import Events
from raft.simulation.file_disk import FileDisk
from raft.simulation.member import NEVER, SimulatedMember
from raft.simulation.network import Network
from raft.simulation.plan import Plan

TURN_SECONDS = (0.0003, 0.0015)  # how long a turn takes
RESTART_SECONDS = 0.3  # after an error that a restart may cure
RECONNECT_SECONDS = (0.005, 0.2)
STRANGER = "zz"
NEWER_LEVEL = FEATURE_LEVEL + 1  # what the newest build of a simulated cluster knows
UPGRADE_SHARE = 0.5


class Cluster:
    """All members of one run; the seed's other parts (faults, clients) act on it."""

    def __init__(self, plan: Plan, rules: Rules = ALL_RULES, show: bool = False) -> None:
        self.plan, self.events, self.trace = plan, Events(), show
        self.dice = random.Random(f"cluster {plan.seed}")
        self.calm = False  # the storm is over
        self.counts: Counter[str] = Counter()  # how often what happened
        self.network = Network(
            self.events,
            random.Random(f"network {plan.seed}"),
            plan.weather,
            plan.codec,
            self.counts,
            self._arrive,
            self._way_changed,
        )
        self.members = {name: self._member(name, rules) for name in plan.names}
        self.checks = Checks(self.members, plan.weather.corruption > 0)
        for member in self.members.values():
            self.start(member)

    def _member(self, name: str, rules: Rules) -> SimulatedMember:
        plan = self.plan
        level = FEATURE_LEVEL if name in plan.older else NEWER_LEVEL
        settings = RaftSettings(NOWHERE, name, "", 1, feature_level=level, **plan.settings)  # type: ignore[arg-type]
        content = formed(plan.voters, name) if plan.names.index(name) < plan.voters else formed(0)
        dice = random.Random(f"member {name} {plan.seed}")
        disk = FileDisk(content, dice) if plan.real_files else Disk(content)
        return SimulatedMember(name, settings, disk, Clock(plan.drift[name]), dice, rules)

    def note(self, text: str) -> None:
        """A line of the story, for who wants to read it."""
        if self.trace:
            print(f"{self.events.now:9.4f}  {text}")

    def close(self) -> None:
        """Lets go of the disks."""
        for member in self.members.values():
            member.disk.close()

    # ---- up and down --------------------------------------------------------------------------

    def start(self, member: SimulatedMember) -> None:
        """The daemon starts, if it is not running; the others find it and it finds them."""
        if member.driver is not None:
            return
        try:
            driver = member.start(self.events.now)
        except PowerCut:
            self._cut_in_write(member, RESTART_SECONDS)
            return
        except LevelUnknown as fault:
            self._too_old(member, fault)
            return
        except MemberFault as fault:
            raise Violation(f"{member.name} does not start: {fault}") from fault
        self.note(f"{member.name} starts with term {driver.consensus.algorithm.term()}")
        self.checks.applied(member, driver)
        self.schedule(member)
        for other in self.members.values():
            if other is not member and other.driver is not None:
                self.connect_soon(member.name, other.name)
                self.connect_soon(other.name, member.name)

    def connect_soon(self, sender: str, receiver: str) -> None:
        self.events.after(self.dice.uniform(*RECONNECT_SECONDS), self._connect, sender, receiver)

    def _connect(self, sender: str, receiver: str) -> None:
        if self.members[sender].driver is not None and self.members[receiver].driver is not None:
            self.network.connect(sender, receiver)

    def disconnect(self, sender: str, receiver: str) -> None:
        self.network.disconnect(sender, receiver)

    def power_cut(self, member: SimulatedMember, seconds: float) -> None:
        """The host goes dark for a while, with what was not on its disk."""
        self.note(f"{member.name} loses power for {seconds:.2f} s")
        self.counts["power cuts"] += 1
        member.disk.lose_power()
        self._down(member, seconds)

    def stop(self, member: SimulatedMember, seconds: float, why: str) -> None:
        """The daemon ends in order, or by an error that it noticed itself."""
        self.note(f"{member.name} stops for {seconds:.2f} s: {why}")
        if member.driver is not None:
            for ticket, outcome in member.driver.close(write=False):
                self._answer(member, ticket, outcome, (None, 0))
        member.disk.lose_power()
        self._down(member, seconds)

    def _too_old(self, member: SimulatedMember, fault: LevelUnknown) -> None:
        """Its daemon waits for the newer software, which a person installs; often it is started again before."""
        if member.settings.feature_level >= NEWER_LEVEL:
            raise Violation(f"{member.name} stops: {fault}") from fault
        self.counts["stops of older builds"] += 1
        if self.calm or self.dice.random() < UPGRADE_SHARE:
            self.upgrade(member)
        self.stop(member, RESTART_SECONDS, str(fault))

    def upgrade(self, member: SimulatedMember) -> None:
        """The next start is that of the newer software."""
        member.settings = replace(member.settings, feature_level=NEWER_LEVEL)

    def lose_disk(self, member: SimulatedMember, seconds: float) -> bool:
        """The host comes back with its name and an empty disk; not where that would be one disk too many."""
        for one in self.members.values():
            membership = one.driver.journal.membership if one.driver is not None else one.membership_seen
            lost = [peer for peer in membership if self.lost(peer) or peer.node_id == member.name]
            if membership and 2 * len(lost) >= len(membership):
                return False
        if member.driver is None:
            return False
        self.power_cut(member, seconds)
        self.note(f"{member.name} has lost its disk")
        self.counts["disks lost"] += 1
        self.counts["disks of voters lost"] += any(peer.node_id == member.name for peer in member.membership_seen)
        member.lose_disk()
        return True

    def lost(self, peer: Peer) -> bool:
        """Whether the log that has this vote is gone."""
        return self.members[peer.node_id].log_id != peer.log_id

    def _down(self, member: SimulatedMember, seconds: float) -> None:
        member.stop()
        for other in self.members.values():
            if other is not member:
                self.network.disconnect(member.name, other.name)
                self.network.disconnect(other.name, member.name)
        self.events.after(seconds, self.start, member)

    # ---- turns --------------------------------------------------------------------------------

    def schedule(self, member: SimulatedMember) -> None:
        """The next turn, as the driver wants it and as soon as the member has time."""
        if member.driver is None:
            return
        if member.inbox or member.requests or member.ways:
            at = self.events.now
        else:
            at = member.clock.when(member.driver.wake_at(member.clock.read(self.events.now))) + 1e-6
        at = max(at, member.busy_until)
        if at < member.turn_at and at != NEVER:
            member.turn_at = at
            self.events.at(at, self._turn, member, member.life, at)

    def _turn(self, member: SimulatedMember, life: int, at: float) -> None:
        if member.life != life or member.turn_at != at:
            return
        if member.busy_until > at:
            member.turn_at = NEVER
            self.schedule(member)
            return
        driver, now = member.driver, self.events.now
        assert driver is not None
        writes = member.disk.writes
        try:
            turn = self._run_turn(member, driver, member.clock.read(now))
        except (PowerCut, MemberFault) as fault:
            self._turn_failed(member, fault)
            self.checks.after_failed_turn(member, driver)
            return
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{member.name} fails with {error!r}") from error
        if turn is not None:
            self.checks.after_turn(member, driver, turn)
        else:
            turn = Turn()
        self.counts["snapshots installed"] += turn.restored
        took = self.dice.uniform(*TURN_SECONDS)
        if member.slow_until > now and member.disk.writes > writes:
            took += member.slow_seconds
            self.counts["slow writes"] += 1
        if member.sluggish_until > now:
            took += member.sluggish_seconds
            self.counts["slow turns"] += 1
        member.busy_until = now + took
        member.turn_at = NEVER
        if self.trace:
            self._tell(member, driver)
        if turn.outbox or turn.answers:
            answers = [(ticket, outcome, self._seen(driver, ticket)) for ticket, outcome in turn.answers]
            self.events.at(member.busy_until, self._release, member, member.life, turn, answers)
        self.schedule(member)

    def _run_turn(self, member: SimulatedMember, driver: Driver, local: float) -> Turn | None:
        """None where what arrived asks for nothing, as in raft/worker.py."""
        messages_only = not (member.ways or member.requests)
        for other, up in member.ways:
            driver.connected(other, up)
        inbox, requests = member.inbox, member.requests
        member.ways, member.inbox, member.requests = [], [], []
        for sender, message in inbox:
            if isinstance(message, VoteRequest):
                self._deliver_vote_request(driver, sender, message, local)
            else:
                driver.deliver(sender, message, local)
        for request in requests:
            driver.request(request)
        if messages_only and inbox and driver.idle(local):
            return None
        return self._turn_and_send(member, driver, local)

    def _turn_and_send(self, member: SimulatedMember, driver: Driver, local: float) -> Turn:
        """A turn whose early messages leave at once, while the disk is still to write what they speak of."""
        later: Outbox = []
        member.sent_early = 0

        def send(messages: Outbox) -> None:
            early = driver.journal.dirty and all(isinstance(message, Append) for _, message in messages)
            if not early:
                later.extend(messages)
                return
            for receiver, message in messages:
                if member.cut_in_send == 0:
                    self.counts["power cuts between messages"] += 1
                    raise PowerCut
                member.cut_in_send -= member.cut_in_send > 0
                member.sent_early += 1
                self.counts["messages before the sender's own write"] += 1
                self.network.send(member.name, receiver, message)

        turn = driver.turn(local, send)
        turn.outbox = later
        return turn

    def _turn_failed(self, member: SimulatedMember, fault: PowerCut | MemberFault) -> None:
        if isinstance(fault, PowerCut):
            self._cut_in_write(member, member.dark_seconds)
            return
        if isinstance(fault, LevelUnknown):
            self._too_old(member, fault)
            return
        if not member.disk.broken:
            raise Violation(f"{member.name} stops: {fault}") from fault
        full = isinstance(fault, DiskFull)
        self.counts["stops for a full disk" if full else "stops for a disk's error"] += 1
        self.stop(member, RESTART_SECONDS if full else member.dark_seconds, str(fault))

    def _cut_in_write(self, member: SimulatedMember, seconds: float) -> None:
        if member.disk.cut_at:
            self.counts[f"power cuts at {member.disk.cut_at}"] += 1
            self.counts["power cuts after early messages"] += member.sent_early > 0
        self.power_cut(member, seconds)

    def _deliver_vote_request(self, driver: Driver, sender: str, request: VoteRequest, local: float) -> None:
        """A candidate that has the member's vote is told so again when it asks again."""
        consensus = driver.consensus
        has_it = (
            not request.rehearsal
            and (request.term, sender) == (consensus.algorithm.term(), consensus.algorithm.voted_for())
            and (request.handed_over or not consensus.quorum(local))
            and consensus.algorithm.role() != "leader"
        )
        driver.deliver(sender, request, local)
        if has_it and (sender, Vote(request.term)) not in consensus.outbox:
            raise Violation(f"{sender} asked again for a vote that it had in term {request.term} and got no answer")

    def _release(
        self, member: SimulatedMember, life: int, turn: Turn, answers: list[tuple[object, object, object]]
    ) -> None:
        """The turn's messages and answers go out, unless the power goes first."""
        if member.life != life:
            return
        # PySyncObj asks for votes in an order that differs from process to process; a seed must not.
        for receiver, message in sorted(turn.outbox, key=lambda one: one[0]):
            if member.cut_in_send == 0:
                self.counts["power cuts between messages"] += 1
                self.power_cut(member, member.dark_seconds)
                return
            member.cut_in_send -= member.cut_in_send > 0
            self.network.send(member.name, receiver, message)
        for ticket, outcome, seen in answers:
            self._answer(member, ticket, outcome, seen)

    @staticmethod
    def _seen(driver: Driver, ticket: object) -> tuple[str | None, int]:
        if isinstance(ticket, Attempt) and ticket.task.kind == "read":
            return register_of(driver, ticket.task.register)
        return None, 0

    def _answer(self, member: SimulatedMember, ticket: object, outcome: object, seen: object) -> None:
        if isinstance(ticket, Attempt):
            delay = self.dice.uniform(0.0005, 0.02)
            self.events.after(delay, ticket.task.client.answered, ticket, outcome, seen)
        else:
            self.note(f"{member.name} to {ticket}: {outcome or 'done'}")

    # ---- what arrives -------------------------------------------------------------------------

    def _arrive(self, sender: str, receiver: str, message: Message) -> None:
        member = self.members.get(receiver)
        if member is not None and member.driver is not None:
            member.inbox.append((sender, message))
            self.schedule(member)

    def _way_changed(self, sender: str, receiver: str, up: bool) -> None:
        member = self.members[sender]
        if member.driver is not None:
            member.ways.append((receiver, up))
            self.schedule(member)

    def inject(self, receiver: str, message: Message) -> None:
        """Somebody with a certificate of the cluster who is no member says something."""
        self._arrive(STRANGER, receiver, message)

    def ask(self, name: str, request: Asked) -> bool:
        member = self.members[name]
        if member.driver is None:
            return False
        for ticket in request.tickets if isinstance(request, ProposeChain) else (request.ticket,):
            if isinstance(ticket, Probe):
                ticket.committed_before = self.checks.commit_index
        member.requests.append(request)
        self.schedule(member)
        return True

    # ---- looking ------------------------------------------------------------------------------

    def leader(self) -> SimulatedMember | None:
        """The leader of the newest term, if any."""
        found, newest = None, -1
        for member in self.members.values():
            if member.driver is not None and member.driver.consensus.leads:
                term = member.driver.consensus.algorithm.term()
                if term > newest:
                    found, newest = member, term
        return found

    def _tell(self, member: SimulatedMember, driver: Driver) -> None:
        consensus = driver.consensus
        story = (consensus.role(), consensus.algorithm.term(), consensus.algorithm.leader_id())
        if story != member.told:
            member.told = story
            self.note(f"{member.name} is {story[0]} in term {story[1]}, leader {story[2] or 'unknown'}")
