"""How many tasks a service that is scaled by its load is to have. Pure; time is handed in.

A measure asks for ceil(total / target) tasks, and of several the one that asks for most counts. Within TOLERANCE of the
target nothing changes. Slots of which no load is known count as idle where more are asked for and as fully loaded where
fewer are, so what is not known never changes anything by itself. Up at once (or when it has been asked for during
`up_stabilisation`), at most by GROWTH_FACTOR or GROWTH_TASKS at a time; down only to the most that was asked for during
all of `stabilisation`; never down while a rollout goes on; never outside of the bounds.

After Kubernetes' HorizontalPodAutoscaler:
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daemon.orchestration.autoscale_loads import Load
from daemon.orchestration.quantities import duration_text
from proto import objects_pb2 as objects

TOLERANCE = 0.1
GROWTH_FACTOR = 2
GROWTH_TASKS = 4
STABILISATION_MS_DEFAULT = 300_000
NOTE_MS_MIN = 10_000  # between two notes of what was found, where nothing is changed
NOTE_AGAIN_MS = 60_000  # that the loads are others now
_ROUNDING = 1e-9
Autoscaling = objects.Autoscaling


@dataclass
class History:
    """What was asked for lately, of one service; in the leader's memory only."""

    began_ms: int
    asked: deque[tuple[int, int]] = field(default_factory=deque)  # (when, tasks), oldest first

    def note(self, now_ms: int, tasks: int, keep_ms: int) -> None:
        self.asked.append((now_ms, tasks))
        while self.asked[0][0] < now_ms - keep_ms:
            self.asked.popleft()

    def within(self, now_ms: int, window_ms: int, before: int, choose: Callable[[Sequence[int]], int]) -> int:
        """The least or most that was asked for during a time; `before` is what counts of the time before `began_ms`."""
        found = [tasks for at_ms, tasks in self.asked if at_ms >= now_ms - window_ms]
        if self.began_ms > now_ms - window_ms:
            found.append(before)
        return choose(found) if found else before


@dataclass(frozen=True)
class Asked:
    """`tasks` None: nothing is known."""

    tasks: int | None
    because: str  # in words


@dataclass(frozen=True)
class Decision:
    replicas: int
    state: Autoscaling.State.ValueType
    message: str


def needed(values: Sequence[float | None], target: float) -> int | None:
    """Tasks that a load asks for; `values` of each slot that is to have one now. None: nothing is known."""
    known = [value for value in values if value is not None]
    if not known or target <= 0:
        return None
    present, total = len(values), sum(known)
    if total > present * target * (1 + TOLERANCE):
        return math.ceil(total / target - _ROUNDING)
    total += (present - len(known)) * target
    if total < present * target * (1 - TOLERANCE):
        return max(math.ceil(total / target - _ROUNDING), 1)
    return present


def ask(loads: Sequence[Load], present: int) -> Asked:
    """What all measures together ask for: where one is not known, no fewer than there are."""
    found = [(needed(load.values, load.measure.target), load) for load in loads]
    known = [(tasks, load) for tasks, load in found if tasks is not None]
    if not known:
        problem = next((load.problem for load in loads if load.problem), "")
        return Asked(None, "no load of its tasks is known" + (f": {problem}" if problem else ""))
    tasks, load = max(known, key=lambda each: each[0])
    if len(known) < len(found):
        unknown = next(load for tasks, load in found if tasks is None)
        if tasks < present:
            why = f": {unknown.problem}" if unknown.problem else ""
            return Asked(present, f"no value of {unknown.measure.what} is known{why}, so there are to be no fewer")
    return Asked(tasks, _because(load))


def decide(service: objects.Service, asked: Asked, history: History, now_ms: int) -> Decision:
    """What the service is to have now. `asked` is the last that `history` has."""
    scale, present = service.spec.autoscale, service.spec.replicas
    low, high = max(scale.replicas_min, 1), max(scale.replicas_max, 1)
    if not low <= present <= high:
        wanted = min(max(present, low), high)
        return Decision(wanted, Autoscaling.STATE_SCALED, f"its file allows {low} to {high}")
    if asked.tasks is None:
        return Decision(present, Autoscaling.STATE_UNKNOWN, asked.because)
    wanted = min(max(asked.tasks, low), high)
    because = f"{asked.because}: {asked.tasks} {'is' if asked.tasks == 1 else 'are'} needed"
    if wanted > present:
        wanted = max(history.within(now_ms, scale.up_stabilisation_ms, present, min), present)
        wanted = min(wanted, high, max(present * GROWTH_FACTOR, present + GROWTH_TASKS))
        if wanted > present:
            return Decision(wanted, Autoscaling.STATE_SCALED, because)
        rest = f"it waits until that has been so for {duration_text(scale.up_stabilisation_ms)}"
        return Decision(present, Autoscaling.STATE_WAITING, f"{because}; {rest}")
    if wanted < present:
        if rolling(service):
            return Decision(present, Autoscaling.STATE_HELD, f"{because}; not while a rollout goes on")
        window_ms = scale.stabilisation_ms or STABILISATION_MS_DEFAULT
        wanted = min(max(history.within(now_ms, window_ms, present, max), low), present)
        if wanted < present:
            return Decision(wanted, Autoscaling.STATE_SCALED, because)
        rest = f"it waits until no more have been for {duration_text(window_ms)}"
        return Decision(present, Autoscaling.STATE_WAITING, f"{because}; {rest}")
    if asked.tasks > high:
        return Decision(present, Autoscaling.STATE_AT_MAX, f"{because}, and it may have {high}")
    if asked.tasks < low:
        return Decision(present, Autoscaling.STATE_AT_MIN, f"{because}, and it is to have {low} at least")
    return Decision(present, Autoscaling.STATE_STEADY, asked.because)


def rolling(service: objects.Service) -> bool:
    """Whether a new version of it is on its way, or stopped half way."""
    if service.HasField("traffic"):
        return True
    over = (objects.Rollout.STATE_UNSPECIFIED, objects.Rollout.STATE_DONE)
    return service.rollout.generation == service.generation and service.rollout.state not in over


def changed(service: objects.Service, decision: Decision, loads: Sequence[Load], now_ms: int) -> objects.Service | None:
    """The service with the decision in it; None where there is nothing that must be stored now."""
    known = service.autoscaling
    if decision.replicas == service.spec.replicas:
        age_ms = now_ms - known.looked_unix_ms
        other = decision.state != known.state
        if age_ms < (NOTE_MS_MIN if other else NOTE_AGAIN_MS):
            return None
        if not other and _as_shown(known.loads) == _as_shown(measured(loads)):
            return None
    after = objects.Service()
    after.CopyFrom(service)
    note = after.autoscaling
    note.state, note.message, note.looked_unix_ms = decision.state, decision.message, now_ms
    del note.loads[:]
    note.loads.extend(measured(loads))
    if decision.replicas != service.spec.replicas:
        note.replicas_before, note.replicas_after = service.spec.replicas, decision.replicas
        note.changed_unix_ms, note.changed_message = now_ms, decision.message
        after.spec.replicas = decision.replicas
    return after


def measured(loads: Sequence[Load]) -> list[objects.LoadMeasured]:
    """The loads in words."""
    return [
        objects.LoadMeasured(
            what=load.measure.what,
            of_task="" if load.average is None else load.measure.words(load.average),
            target=load.measure.words(load.measure.target),
            percent=0 if load.average is None else _percent(load),
        )
        for load in loads
    ]


def _as_shown(loads: Sequence[objects.LoadMeasured]) -> list[tuple[str, str, int]]:
    """As far as it is worth a commit that they are others."""
    return [(load.what, load.target, (load.percent + 5) // 10) for load in loads]


def _percent(load: Load) -> int:
    average = load.average or 0.0
    return min(round(100 * average / load.measure.target), 1_000_000)


def _because(load: Load) -> str:
    average = load.average or 0.0
    known = sum(value is not None for value in load.values)
    words = load.measure.words
    text = f"{load.measure.what} of a task is {words(average)}"
    text += f", {_percent(load)}% of the target {words(load.measure.target)}"
    return text if known == len(load.values) else f"{text} (known of {known} of {len(load.values)})"
