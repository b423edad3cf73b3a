"""Carries out the faults of a plan at their times, and ends them all."""

from __future__ import annotations

import random

from proto import objects_pb2 as objects
from raft.driver import Driver
from raft.entry import transaction_command
from raft.errors import MemberFault
from raft.features import level_of
from raft.messages import AppendReply, StaleTerm, Vote, VoteRequest
from raft.requests import AddVoter, Follow, HandOver, Propose, ReadBarrier, RemoveVoter
from raft.settings import Peer
from raft.simulation.checks import Violation
from raft.simulation.clients import Probe
from raft.simulation.cluster import NEWER_LEVEL, Cluster
from raft.simulation.member import SimulatedMember
from raft.simulation.plan import Fault
from raft.transaction import TransactionBuilder

STRANGER_SECONDS = 0.15
BURST_REQUESTS = 120
ECHO_MESSAGES = 200
PROBES = 25  # current reads asked of a leader that was cut off
VOTERS_MIN = 3
STATEMENTS_OF_WRITE = 8  # few writes of a leader have more
FOLLOW_AFTER_SECONDS = 0.5
REPAIR_SECONDS = (0.3, 3.0)
REPAIR_AGAIN_SECONDS = 0.5
LEVEL_AGAIN_SECONDS = 0.5
FOLLOW_SHARE = 0.4  # of the changes that concern a member without a vote


class Faults:
    """Schedules everything that goes wrong until `end`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._events, self._plan = cluster, cluster.events, cluster.plan
        self._dice = random.Random(f"faults {self._plan.seed}")
        self._over = False
        self._bursts = 0
        self.repairing: set[str] = set()  # lost their disks; the operator takes and gives votes for them
        for fault in self._plan.faults:
            self._events.at(fault.at, self._strike, fault)
        if self._plan.voters == 1:
            for name in self._plan.names:
                self._events.after(FOLLOW_AFTER_SECONDS, self._follow, name)
        if self._plan.older:
            self._events.at(self._plan.newer_at, self._use_newer_level, 0)
        if self._plan.strangers:
            self._events.after(STRANGER_SECONDS, self._stranger)

    def end(self) -> None:
        """Fine weather: ways open, disks work, clocks go right, hosts start."""
        self._over = self._cluster.calm = True
        cluster = self._cluster
        cluster.note("the faults are over")
        cluster.network.heal()
        for member in cluster.members.values():
            member.disk.full = member.disk.error_next = False
            member.disk.cut_in_statements = 0
            member.slow_until = member.sluggish_until = 0.0
            member.cut_in_send = -1
            if member.driver is None:
                cluster.upgrade(member)
            member.clock.calm(self._events.now)
            cluster.start(member)
        for member in cluster.members.values():
            for other in cluster.members.values():
                if member is not other:
                    # What was held or broken begins anew, as connections do that were silent for long.
                    cluster.disconnect(member.name, other.name)
                    cluster.connect_soon(member.name, other.name)
            cluster.schedule(member)

    # ---- one fault ----------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        if self._over:
            return
        self._cluster.note(f"fault: {fault}")
        self._cluster.counts[f"fault {fault.kind}"] += 1
        cluster = self._cluster
        member = cluster.members[fault.member]
        match fault.kind:
            case "partition":
                self._partition(fault)
            case "one-way":
                cluster.network.block(fault.member, fault.other, fault.seconds, fault.flag)
            case "flapping":
                self._flap(fault, fault.number)
            case "break":
                cluster.disconnect(fault.member, fault.other)
                self._events.after(fault.seconds, cluster.connect_soon, fault.member, fault.other)
            case "power-cut" if member.driver is not None:
                cluster.power_cut(member, fault.seconds)
            case "restart" if member.driver is not None:
                cluster.stop(member, fault.seconds, "it is restarted")
            case "blackout":
                for one in cluster.members.values():
                    if one.driver is not None:
                        cluster.power_cut(one, fault.seconds * self._dice.uniform(0.5, 1.5))
            case "cut-in-write":
                self._cut_in_write(member, fault)
            case "cut-in-send":
                member.dark_seconds, member.cut_in_send = fault.seconds, fault.number
            case "disk-full":
                member.disk.full = True
                self._events.after(fault.seconds, self._room, member)
            case "disk-error":
                member.dark_seconds = fault.seconds
                member.disk.error_next, member.disk.kept = True, fault.flag
            case "disk-slow":
                member.slow_until = self._events.now + fault.seconds
                member.slow_seconds = fault.number / 1000
            case "disk-lost":
                self._lose_disk(member, fault)
            case "rot":
                self._rot(member, fault)
            case "pause":
                member.busy_until = max(member.busy_until, self._events.now + fault.seconds)
            case "slow-member":
                member.sluggish_until = self._events.now + fault.seconds
                member.sluggish_seconds = fault.number / 1000
            case "clock-jump":
                member.clock.jump(fault.seconds)
                member.turn_at = float("inf")
                cluster.schedule(member)
            case "membership":
                self._change_members(member, fault.flag)
            case "echo":
                cluster.network.echo(fault.member, fault.number)
            case "comeback":
                self._comeback(fault)
            case "hand-over":
                self._ask_leader(HandOver("operator: hand over", fault.member))

    def _partition(self, fault: Fault) -> None:
        """The member and `number` - 1 others on one side, the rest on the other."""
        names = list(self._cluster.plan.names)
        start = names.index(fault.member)
        inside = {names[(start + offset) % len(names)] for offset in range(min(fault.number, len(names) - 1))}
        for one in inside:
            for other in set(names) - inside:
                self._cluster.network.block(one, other, fault.seconds, fault.flag)
                self._cluster.network.block(other, one, fault.seconds, fault.flag)

    def _cut_in_write(self, member: SimulatedMember, fault: Fault) -> None:
        """At a statement from now; one time in three at the leader's next write, whose messages are on their way."""
        leader, number = self._cluster.leader(), fault.number
        if number > STATEMENTS_OF_WRITE and leader is not None:
            member, number = leader, (number - 1) % STATEMENTS_OF_WRITE + 1
        member.dark_seconds = fault.seconds
        member.disk.cut_in_statements, member.disk.kept = number, fault.flag

    def _comeback(self, fault: Fault) -> None:
        """A leader is cut off, with one follower where there are five voters, and gets requests all the same; it is
        deposed, and leads again while that follower is away and late answers of the first time arrive."""
        cluster, leader = self._cluster, self._cluster.leader()
        if leader is None or leader.driver is None or leader.driver.consensus.voters == {leader.name}:
            return
        voters = sorted(leader.driver.consensus.voters - {leader.name})
        follower = self._dice.choice(voters)
        inside = {leader.name, follower} if len(voters) >= 4 else {leader.name}
        for one in inside:
            for other in set(cluster.plan.names) - inside:
                cluster.network.block(one, other, fault.seconds, False)
                cluster.network.block(other, one, fault.seconds, False)
        for number in range(PROBES):
            self._events.after(fault.seconds * number / PROBES, self._probe, leader.name)
        if len(inside) == 2:
            self._events.after(0.2, self._burst, leader)
        back = fault.seconds + 0.6
        self._events.after(back, self._ask_leader, HandOver("operator: come back", leader.name))
        self._events.after(back + 0.3, self._away_and_echo, leader, follower)

    def _probe(self, name: str) -> None:
        if not self._over:
            self._cluster.ask(name, ReadBarrier(Probe()))

    def _burst(self, leader: SimulatedMember) -> None:
        self._bursts += 1
        for number in range(BURST_REQUESTS):
            request_id = f"burst{self._bursts}-{number}"
            wanted = objects.Tenant(meta=objects.Meta(id="burst", name="burst"), description=request_id)
            command = transaction_command(TransactionBuilder().put(wanted).build(request_id, "burst", 1))
            self._cluster.ask(leader.name, Propose(request_id, command))

    def _away_and_echo(self, leader: SimulatedMember, follower: str) -> None:
        if self._over:
            return
        for one, other in ((leader.name, follower), (follower, leader.name)):
            self._cluster.network.block(one, other, 1.0, False)
        for moment in range(1, 5):
            self._events.after(0.2 * moment, self._echo, leader.name, follower)

    def _echo(self, name: str, of: str) -> None:
        if not self._over:
            self._cluster.network.echo(name, ECHO_MESSAGES, of)

    def _flap(self, fault: Fault, times: int) -> None:
        if self._over or not times:
            return
        share = fault.seconds / fault.number
        cluster = self._cluster
        if fault.flag:
            cluster.disconnect(fault.member, fault.other)
            self._events.after(share / 2, cluster.connect_soon, fault.member, fault.other)
        else:
            cluster.network.block(fault.member, fault.other, share / 2, False)
        self._events.after(share, self._flap, fault, times - 1)

    def _room(self, member: SimulatedMember) -> None:
        member.disk.full = False

    def _rot(self, member: SimulatedMember, fault: Fault) -> None:
        """What a damaged disk holds is refused; then it turns out to have been the cable."""
        rotten = member.disk.rotten(self._dice, fault.flag)
        if rotten is None:
            return
        self._cluster.counts["damaged disks refused"] += 1
        try:
            Driver(member.settings, rotten, 0.0, lambda: 0.5, member.rules)
        except MemberFault:
            pass
        else:
            raise Violation(f"{member.name} starts from a state that is damaged or incomplete")
        finally:
            rotten.close()
        if member.driver is not None:
            self._cluster.stop(member, fault.seconds, "its state was damaged")

    def _lose_disk(self, member: SimulatedMember, fault: Fault) -> None:
        if self._cluster.lose_disk(member, fault.seconds):
            self.repairing.add(member.name)
            self._events.after(fault.seconds + self._dice.uniform(*REPAIR_SECONDS), self._repair, member)

    def _repair(self, member: SimulatedMember) -> None:
        """The operator takes the vote of the lost log and gives one to the new log, when the storm is over too."""
        leader = self._cluster.leader()
        if leader is not None and leader.driver is not None and member.log_id:
            log_id = leader.driver.consensus.log_ids.get(member.name)
            if log_id == member.log_id:
                self.repairing.discard(member.name)
                return
            peer = Peer(member.name, "", 1)
            add, remove = AddVoter("operator: repaired", peer), RemoveVoter("operator: lost", member.name)
            self._cluster.ask(leader.name, add if log_id is None else remove)
        self._events.after(REPAIR_AGAIN_SECONDS, self._repair, member)

    def _change_members(self, member: SimulatedMember, add: bool) -> None:
        leader = self._cluster.leader()
        if leader is None or leader.driver is None:
            return
        voters = leader.driver.consensus.voters
        if member.name not in voters and self._dice.random() < FOLLOW_SHARE:
            self._follow(member.name, add)
        elif member.name not in voters:
            self._ask_leader(AddVoter(f"operator: add {member.name}", Peer(member.name, "", 1)))
        elif len(voters) > VOTERS_MIN or (add and len(voters) > 1):
            self._ask_leader(RemoveVoter(f"operator: remove {member.name}", member.name))

    def _follow(self, name: str, wanted: bool = True) -> None:
        self._ask_leader(Follow(f"operator: {name} follows", Peer(name, "", 1), wanted))

    def _ask_leader(self, request: AddVoter | Follow | RemoveVoter | HandOver) -> None:
        leader = self._cluster.leader()
        if leader is not None and not self._over:
            self._cluster.ask(leader.name, request)

    def _use_newer_level(self, times: int) -> None:
        """The cluster's level is raised though some members do not know it, and asked for again until it is."""
        leader = self._cluster.leader()
        if self._over or (leader is not None and leader.driver is not None and level_of(leader.driver.store) > 1):
            return
        if leader is not None:
            cluster = objects.Cluster(meta=objects.Meta(id="cluster", name="cluster"), feature_level=NEWER_LEVEL)
            request_id = f"level-{times}"
            command = transaction_command(TransactionBuilder().put(cluster).build(request_id, "operator", 1))
            self._cluster.ask(leader.name, Propose(request_id, command))
        self._events.after(LEVEL_AGAIN_SECONDS, self._use_newer_level, times + 1)

    # ---- a stranger ---------------------------------------------------------------------------

    def _stranger(self) -> None:
        """Says what somebody says who was a member once and does not know that it is none."""
        if self._over:
            return
        dice = self._dice
        self._events.after(dice.expovariate(1 / STRANGER_SECONDS), self._stranger)
        member = self._cluster.members[dice.choice(self._plan.names)]
        candidates = [
            one
            for one in self._cluster.members.values()
            if one.driver is not None and one.driver.consensus.algorithm.role() == "candidate"
        ]
        if candidates:
            member = dice.choice(candidates)
        if member.driver is None:
            return
        algorithm, last = member.driver.consensus.algorithm, member.driver.journal.last_index
        message = dice.choice(
            (
                Vote(algorithm.term()),
                Vote(algorithm.term() + 1, rehearsal=True),
                VoteRequest(algorithm.term() + dice.randint(0, 3), last + dice.randint(-2, 2), algorithm.term()),
                AppendReply(algorithm.term(), last + 1, True, False, 10**6),
                StaleTerm(algorithm.term() + 5),
            )
        )
        self._cluster.counts["messages of strangers"] += 1
        self._cluster.inject(member.name, message)
