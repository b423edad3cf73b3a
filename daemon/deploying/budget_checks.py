"""What must hold of a service's disruption budget, and what of it differs between two versions, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration.budget_plan import MILLION, bounded, budget_text, required_slots
from daemon.orchestration.kinds import follows_hosts, is_job
from proto import objects_pb2 as objects


def says_budget(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know it would take away more than it allows."""
    return bounded(spec)


def budget_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """In words, as they go on after the service's name."""
    budget = spec.disruption_budget
    if spec.HasField("disruption_budget") and not bounded(spec):
        yield "its disruption budget has neither max_unavailable nor min_available"
    if bounded(spec) and is_job(spec):
        yield "it is a job, whose tasks run to their end: a disruption budget is for services that run all the time"
    if max(budget.unavailable_max_millionths, budget.available_min_millionths) > MILLION:
        yield "the share in its disruption budget is more than 100%"


def budget_warnings(spec: objects.ServiceSpec) -> Iterator[str]:
    """What will surprise, as it goes on after the service's name."""
    if not bounded(spec) or follows_hosts(spec) or not spec.replicas:
        return
    if required_slots(spec.disruption_budget, spec.replicas) >= spec.replicas:
        yield (
            f"its disruption budget ({budget_text(spec.disruption_budget)} of {spec.replicas} tasks) allows no task to "
            "be missing: a drain waits for good where a task cannot be replaced first"
        )


def budget_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """For which no task is replaced."""
    old, new = (budget_text(spec.disruption_budget) or "none" for spec in (before, after))
    return [f"disruption budget {old} -> {new}"] if old != new else []
