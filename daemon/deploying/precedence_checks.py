"""What must hold of a service's `precedence`, and what of it differs between two versions, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration.kinds import follows_hosts, is_ordered
from daemon.orchestration.precedence import GROUP_TASKS_MAX
from proto import control_pb2 as control
from proto import objects_pb2 as objects

PRIORITY_MAX = 1_000
GROUP_CHARACTERS_MAX = 63


def says_precedence(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know it would place its tasks out of turn, or one by one."""
    return spec.HasField("precedence")


def precedence_problems(app: control.AppSpec, name: str, spec: objects.ServiceSpec) -> Iterator[str]:
    """Of one service of the app. In a group nothing may wait for another of it: neither would ever start."""
    precedence = spec.precedence
    if abs(precedence.priority) > PRIORITY_MAX:
        yield f"its priority is {precedence.priority}; it can be -{PRIORITY_MAX} to {PRIORITY_MAX}"
    group = precedence.group
    if not group:
        return
    if len(group) > GROUP_CHARACTERS_MAX:
        yield f"the name of its group has more than {GROUP_CHARACTERS_MAX} characters"
    if is_ordered(spec):
        yield f"its tasks start one after the other, and those of group {group} at once: use order: unordered"
    members = {other: app.services[other] for other in app.services if app.services[other].precedence.group == group}
    for dependency in spec.depends_on:
        if dependency.service in members:
            yield f"it waits for {dependency.service}, and group {group}, which both are of, starts at once"
    for other in sorted(members):
        if members[other].precedence.priority != precedence.priority:
            yield f"its priority is not that of {other}, and group {group}, which both are of, has one"
    count = sum(each.replicas for each in members.values() if not follows_hosts(each))
    if count > GROUP_TASKS_MAX:
        yield f"group {group} has {count} tasks; at most {GROUP_TASKS_MAX} can be placed together"


def precedence_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """What holds of the next decisions, for which no task is replaced."""
    old, new = before.precedence, after.precedence
    reasons = []
    if old.priority != new.priority:
        reasons.append(f"priority {old.priority} -> {new.priority}")
    if old.never_preempts != new.never_preempts:
        reasons.append("stops no tasks for its own now" if new.never_preempts else "may stop tasks for its own now")
    if old.group != new.group:
        reasons.append(f"group {old.group or 'none'} -> {new.group or 'none'}")
    return reasons
