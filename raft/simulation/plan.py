"""From a seed to everything that a run is made of: members, weather, and the faults with their times.

Each seed has only some classes of faults: together they would hide each other. Taking a class or single
faults away leaves the rest as it was, which is what shrinking builds on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

CLASSES = (
    "loss", "delay", "repetition", "disorder", "corruption", "drift", "large", "poison", "stranger",  # all the time
    "chain",  # one client more, which proposes several changes at once
    "versions",  # one moment: the cluster begins to use what older builds do not know
    "partition", "one-way", "flapping", "break", "power-cut", "cut-in-write", "cut-in-send", "blackout", "restart",
    "disk-full", "disk-error", "disk-slow", "disk-lost", "rot",
    "pause", "slow-member", "clock-jump", "membership", "hand-over", "echo", "comeback",
)  # fmt: skip
FAULTS = tuple(name for name in CLASSES[CLASSES.index("partition") :])  # those that happen at a moment
STORM_SECONDS = (5.0, 10.0)
FAULTS_MAX = 24
REAL_FILE_EVERY = 50  # one seed in so many keeps its state in real SQLite files, torn by power cuts
CODEC_EVERY = 8  # one seed in so many sends its messages as bytes


@dataclass(frozen=True)
class Fault:
    """One event. What `seconds`, `number` and `flag` mean depends on the kind (faults.py)."""

    at: float
    kind: str
    member: str = ""
    other: str = ""
    seconds: float = 0.0
    number: int = 0
    flag: bool = False

    def __str__(self) -> str:
        parts = [f"{self.at:7.3f} s  {self.kind}", self.member, self.other and f"and {self.other}"]
        parts += [f"for {self.seconds:.2f} s" if self.seconds else "", f"#{self.number}" if self.number else ""]
        return " ".join(part for part in [*parts, "!" if self.flag else ""] if part)


@dataclass(frozen=True)
class Weather:
    """What happens to every message: seconds of delay, and shares (0 to 1) of mishaps."""

    delay_seconds: tuple[float, float] = (0.0005, 0.004)
    loss: float = 0.0
    repetition: float = 0.0
    disorder: float = 0.0
    corruption: float = 0.0  # of pieces of snapshots


@dataclass(frozen=True)
class Plan:
    """A run before it begins."""

    seed: int
    names: str
    voters: int  # how many of `names` vote at the start
    settings: dict[str, int]
    weather: Weather
    drift: dict[str, float]  # seconds of a member's clock in one of ours
    large_share: float
    poison_share: float
    strangers: bool
    storm_seconds: float
    clients: int
    older: str  # members whose build knows less than the cluster will use ...
    newer_at: float  # ... from this moment on
    classes: frozenset[str]
    faults: tuple[Fault, ...]
    real_files: bool = False
    codec: bool = False


def plan_of(seed: int, without: Collection[str] = (), only: Collection[int] | None = None) -> Plan:
    """The plan of a seed, without some classes, and with only the faults at these positions."""
    dice = random.Random(f"plan {seed}")
    share = dice.choice((0.2, 0.4, 0.7))
    drawn = frozenset(name for name in CLASSES if name != "chain" and dice.random() < share)
    if random.Random(f"chain {seed}").random() < 0.5:  # of its own: seeds without chains stay what they were
        drawn |= {"chain"}
    members = dice.choice((3, 3, 3, 4, 5, 5, 6, 7))
    names = "abcdefg"[:members]
    voters = dice.choice([count for count in (1, 3, 3, 5, 5) if count <= members])
    election = dice.choice((400, 600, 1000))
    settings = {
        "heartbeat_ms": 100,
        "election_ms_min": election,
        "election_ms_max": 2 * election,
        "leader_silence_ms_max": election + election // 2,
        "log_entries_kept_max": dice.choice((2, 5, 20, 100)),
        "log_bytes_kept_max": dice.choice((2000, 20_000, 1_000_000)),
        "state_flush_objects": dice.choice((1, 4, 20)),
        "state_flush_ms": dice.choice((50, 300, 1000)),
        "snapshot_chunk_bytes": dice.choice((300, 1500, 100_000)),
        "snapshot_resend_ms": dice.choice((400, 1200)),
        "append_bytes_max": dice.choice((100, 1000, 100_000)),
        "append_window_bytes": dice.choice((500, 5000, 1_000_000)),
        "append_window_entries": dice.choice((1, 4, 4096)),
        "applied_turn_max": dice.choice((1, 3, 1024)),
        "proposals_turn_max": dice.choice((1, 8, 512)),
    }
    weather = Weather(
        dice.choice(((0.001, 0.05), (0.001, 0.3), (0.02, 0.15))),
        dice.choice((0.005, 0.03, 0.15)),
        dice.choice((0.02, 0.2)),
        dice.choice((0.05, 0.4)),
        dice.choice((0.1, 0.5)),
    )
    storm = dice.uniform(*STORM_SECONDS)
    drift = {name: dice.uniform(0.85, 1.2) for name in names}
    clients = dice.choice((2, 3, 5))
    older = "".join(dice.sample(names, dice.randint(1, (members + 1) // 2)))
    newer_at = dice.uniform(0.5, storm)
    kinds = [name for name in CLASSES if name in drawn and name in _DRAW]
    count = dice.randint(3, FAULTS_MAX) if kinds else 0
    faults = sorted(
        (_DRAW[dice.choice(kinds)](dice, names, dice.uniform(0.3, storm)) for _ in range(count)),
        key=lambda fault: fault.at,
    )
    classes = drawn - set(without)
    return Plan(
        seed,
        names,
        voters,
        settings,
        _weather(weather, classes),
        {name: rate if "drift" in classes else 1.0 for name, rate in drift.items()},
        0.15 if "large" in classes else 0.0,
        0.05 if "poison" in classes else 0.0,
        "stranger" in classes,
        storm,
        clients,
        older if "versions" in classes else "",
        newer_at,
        classes,
        tuple(
            fault
            for position, fault in enumerate(faults)
            if fault.kind in classes and (only is None or position in only)
        ),
        real_files=seed % REAL_FILE_EVERY == 0,
        codec=seed % CODEC_EVERY == 0,
    )


def positions_of(plan: Plan) -> tuple[int, ...]:
    """Where the plan's faults stand in the whole schedule of its seed, for `plan_of(only=...)`."""
    whole = plan_of(plan.seed).faults
    return tuple(position for position, fault in enumerate(whole) if fault in plan.faults)


def _weather(drawn: Weather, classes: Collection[str]) -> Weather:
    calm = Weather()
    return Weather(
        drawn.delay_seconds if "delay" in classes else calm.delay_seconds,
        drawn.loss if "loss" in classes else 0.0,
        drawn.repetition if "repetition" in classes else 0.0,
        drawn.disorder if "disorder" in classes else 0.0,
        drawn.corruption if "corruption" in classes else 0.0,
    )


def _of_member(kind: str, seconds: tuple[float, float] = (0.0, 0.0), numbers: tuple[int, int] = (0, 0)) -> _Draw:
    def draw(dice: random.Random, names: str, at: float) -> Fault:
        fault = Fault(at, kind, dice.choice(names), seconds=dice.uniform(*seconds), flag=dice.random() < 0.5)
        return replace(fault, number=dice.randint(*numbers))

    return draw


def _of_pair(kind: str, seconds: tuple[float, float]) -> _Draw:
    def draw(dice: random.Random, names: str, at: float) -> Fault:
        member, other = dice.sample(names, 2)
        return Fault(at, kind, member, other, dice.uniform(*seconds), dice.randint(2, 6), dice.random() < 0.5)

    return draw


_Draw = Callable[[random.Random, str, float], Fault]
_DRAW: dict[str, _Draw] = {
    "partition": _of_member("partition", (0.2, 4.0), (1, 3)),
    "one-way": _of_pair("one-way", (0.2, 4.0)),
    "flapping": _of_pair("flapping", (0.5, 3.0)),
    "break": _of_pair("break", (0.02, 0.6)),
    "power-cut": _of_member("power-cut", (0.05, 3.0)),
    "cut-in-write": _of_member("cut-in-write", (0.05, 2.0), (1, 12)),
    "cut-in-send": _of_member("cut-in-send", (0.05, 2.0), (0, 3)),
    "blackout": _of_member("blackout", (0.05, 1.5)),
    "restart": _of_member("restart", (0.01, 0.2)),
    "disk-full": _of_member("disk-full", (0.1, 2.5)),
    "disk-error": _of_member("disk-error", (0.3, 2.0)),
    "disk-slow": _of_member("disk-slow", (0.3, 3.0), (5, 300)),
    "disk-lost": _of_member("disk-lost", (0.05, 1.0)),
    "rot": _of_member("rot", (0.05, 0.5)),
    "pause": _of_member("pause", (0.05, 3.0)),
    "slow-member": _of_member("slow-member", (0.3, 3.0), (5, 80)),
    "clock-jump": _of_member("clock-jump", (0.1, 5.0)),
    "membership": _of_member("membership"),
    "hand-over": _of_member("hand-over"),
    "echo": _of_member("echo", numbers=(5, 60)),
    "comeback": _of_member("comeback", (1.2, 2.5)),
}
