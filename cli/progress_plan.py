"""How far a deploy or a drain is, from one listing of tasks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

from cli import job_lines, words
from cli.output import paint
from proto import control_pb2, objects_pb2

REASONS_SHOWN_MAX = 3  # of one service
_ENDED_FROM = objects_pb2.TASK_STATE_EXITED
_STATES = objects_pb2.TaskState.DESCRIPTOR


@dataclass(frozen=True)
class Line:
    """One service's progress. `mark` is "done", "going", "failed", "back" (the version before it is) or "paused"."""

    name: str
    mark: str
    text: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    lines: tuple[Line, ...]

    @property
    def done(self) -> bool:
        return all(line.mark == "done" for line in self.lines)

    @property
    def failed(self) -> bool:
        """Nothing is under way any more, and something is not as it was asked for."""
        return not self.done and all(line.mark != "going" for line in self.lines)


def ended(task: objects_pb2.Task) -> bool:
    """Exited, failed, or lost with its host."""
    return task.status.state >= _ENDED_FROM


def deploy_progress(reply: control_pb2.ListTasksReply, changed: Container[str] = ()) -> Progress:
    """Done when every service has its wanted tasks of its own generation ready, or completed where they are
    not restarted, and no other task of it runs, and its rollout says so too. The listing must hold ended tasks too.
    `changed`: names of services of which a rollback is not what was asked for."""
    by_service: dict[str, list[objects_pb2.Task]] = {}
    for task in reply.tasks:
        by_service.setdefault(task.service_id, []).append(task)
    services = sorted(reply.services, key=lambda service: service.meta.name)
    lines = []
    for each in services:
        line = _service_line(each, by_service.get(each.meta.id, []))
        if each.HasField("rollout") and not each.removing:
            line = with_rollout(line, each, each.meta.name in changed)
        lines.append(line)
    return Progress(tuple(lines))


def with_rollout(line: Line, service: objects_pb2.Service, changed: bool) -> Line:
    """The line of a service's tasks together with what its rollout is at."""
    rollout, state = service.rollout, objects_pb2.Rollout
    said = (rollout.message,) if rollout.message else ()
    if rollout.generation != service.generation:
        return line
    match rollout.state:
        case state.STATE_PAUSED | state.STATE_WAITING:
            return Line(line.name, "paused", line.text, said)
        case state.STATE_FAILED:
            return Line(line.name, "failed", line.text, said)
        case state.STATE_GOING if rollout.back_to:
            return Line(line.name, "going", f"going back to revision {rollout.back_to}: {line.text}", said)
        case state.STATE_GOING:
            return Line(line.name, "going", line.text, line.reasons)
        case state.STATE_DONE if rollout.back_to and changed:
            mark = "going" if line.mark == "going" and not service.HasField("traffic") else "back"
            return Line(line.name, mark, f"back at revision {rollout.back_to}: {line.text}", said)
        case state.STATE_DONE if service.HasField("traffic") or rollout.failed_slots:
            return Line(line.name, "done", line.text, said)  # older tasks are kept, or failures let pass
    return line


def _service_line(service: objects_pb2.Service, tasks: list[objects_pb2.Task]) -> Line:
    if service.removing:
        left = sum(not ended(task) for task in tasks)
        return Line(service.meta.name, "going", f"removing, {words.plural(left, 'task')} left")
    if job_lines.is_job(service):
        return job_line(service, tasks)
    slots = _slots(service, tasks)
    if not slots and service.spec.kind == objects_pb2.SERVICE_KIND_GLOBAL:
        return Line(service.meta.name, "going", "no task yet", ("no host that is up matches its constraints",))
    wanted = len(slots)
    newest: dict[int, objects_pb2.Task] = {}
    for task in tasks:
        if task.generation != service.generation or task.slot not in slots:
            continue
        known = newest.get(task.slot)
        if known is None or _rank(task) > _rank(known):
            newest[task.slot] = task
    current = {task.meta.id for task in newest.values()}
    old = sum(not ended(task) and task.meta.id not in current for task in tasks)
    marks = Counter(_slot_mark(task) for task in newest.values())
    ready = marks["ready"] + marks["completed"]
    reasons = _reasons(newest.values())
    text = f"{ready}/{wanted} {'completed' if marks['completed'] and not marks['ready'] else 'ready'}"
    if old:
        text += f", {words.plural(old, 'older task')} still running"
    if ready == wanted and not old:
        return Line(service.meta.name, "done", text)
    if marks["failed"] and ready + marks["failed"] == wanted:
        return Line(service.meta.name, "failed", text, reasons)
    return Line(service.meta.name, "going", text, reasons)


def job_line(service: objects_pb2.Service, tasks: list[objects_pb2.Task], number: int = 0) -> Line:
    """How far a job's run is: that of its number, or the last one of the service as it is now."""
    mark, text, why = job_lines.course(service, tasks, number)
    run = job_lines.find_run(service, number)
    if mark == "going" and run is not None:
        its = [task for task in tasks if task.run == run.number and task.desired == objects_pb2.DESIRED_STATE_RUNNING]
        why = _reasons(task for task in its if task.status.state != objects_pb2.TASK_STATE_RUNNING)
    return Line(service.meta.name, mark, text, why)


def _slots(service: objects_pb2.Service, tasks: list[objects_pb2.Task]) -> Collection[int]:
    """The slots that are to have a task; those of a global service are its hosts."""
    if service.spec.kind == objects_pb2.SERVICE_KIND_GLOBAL:
        return {task.slot for task in tasks if task.desired == objects_pb2.DESIRED_STATE_RUNNING}
    return range(1, service.spec.replicas + 1)


def _rank(task: objects_pb2.Task) -> tuple[bool, int, int, str]:
    # A task that goes on is newer than one that ended, whatever the clocks of two leaders said.
    return not ended(task), task.attempt, task.meta.created_unix_ms, task.meta.id


def _slot_mark(task: objects_pb2.Task) -> str:
    state, restart = task.status.state, task.spec.restart
    if state == objects_pb2.TASK_STATE_RUNNING and task.status.ready:
        return "ready"
    policy = objects_pb2.RestartPolicy
    if state == objects_pb2.TASK_STATE_EXITED and task.status.exit_code == 0:
        return "going" if restart.condition == policy.CONDITION_ANY else "completed"
    if state in (objects_pb2.TASK_STATE_EXITED, objects_pb2.TASK_STATE_FAILED):
        spent = 0 < restart.max_attempts <= task.attempt
        return "failed" if restart.condition == policy.CONDITION_NONE or spent else "going"
    return "going"


def _reasons(tasks: Iterable[objects_pb2.Task]) -> tuple[str, ...]:
    """What the tasks that are not ready say, the same words once."""
    names: dict[str, list[str]] = {}
    for task in sorted(tasks, key=lambda task: task.slot):
        if _slot_mark(task) in ("ready", "completed"):
            continue
        names.setdefault(reason(task), []).append(task.meta.name)
    shown = [f"{_list_names(who)} {why}" for why, who in names.items() if why]
    if len(shown) > REASONS_SHOWN_MAX:
        shown[REASONS_SHOWN_MAX:] = [f"and {len(shown) - REASONS_SHOWN_MAX} more"]
    return tuple(shown)


def _list_names(names: list[str]) -> str:
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def reason(task: objects_pb2.Task) -> str:
    """ "pending: no host has 64G of memory"; what it failed of before, where it is tried again."""
    status = task.status
    text = words.enum(_STATES, status.state) or "new"
    if ended(task) and not status.message and status.exit_code:
        text += f": exit status {status.exit_code}"
    elif status.health == objects_pb2.HEALTH_UNHEALTHY and not status.message:
        text += ": unhealthy"
    elif status.state == objects_pb2.TASK_STATE_RUNNING and not status.message:
        text += ", not ready yet"
    if status.out_of_memory:
        text += ", out of memory"
    if status.message:
        text += f": {status.message}"
    if task.attempt:
        text += f" (attempt {task.attempt + 1})"
    return text


def drain_progress(reply: control_pb2.ListTasksReply, node: objects_pb2.Node, why: dict[str, list[str]]) -> Progress:
    """Done when no task that goes on is left on the node. `why`: pending reasons by APP/SERVICE."""
    left: Counter[str] = Counter()
    for task in reply.tasks:
        if task.node_id == node.meta.id and not ended(task):
            left[f"{task.app}/{task.service}"] += 1
    if not left:
        return Progress((Line(node.meta.name, "done", "no tasks left"),))
    lines = []
    for name, count in sorted(left.items()):
        reasons = tuple(why.get(name, [])[:REASONS_SHOWN_MAX])
        lines.append(Line(name, "going", f"{words.plural(count, 'task')} left on {node.meta.name}", reasons))
    return Progress(tuple(lines))


_MARKS = {
    "done": ("✔", "green"),
    "going": ("…", "cyan"),
    "failed": ("✘", "red"),
    "back": ("↶", "red"),
    "paused": ("‖", "yellow"),
}
_AFTERWORDS = {"failed": " (failed)", "back": " (rolled back)", "paused": " (paused)"}


def render(progress: Progress, width_columns: int, colour: bool) -> list[str]:
    """Lines for a terminal, none wider than it."""
    found = []
    longest = max((len(line.name) for line in progress.lines), default=0)
    for line in progress.lines:
        mark, paint_with = _MARKS[line.mark]
        body = _cut(f"{line.name.ljust(longest)}   {line.text}", width_columns - 4)
        found.append(f"  {paint(mark, paint_with, colour)} {body}")
        found.extend("      " + paint(_cut(each, width_columns - 6), "yellow", colour) for each in line.reasons)
    return found


def _cut(text: str, width_columns: int) -> str:
    text = " ".join(text.split("\n"))
    return text if len(text) <= max(1, width_columns) else text[: max(1, width_columns) - 1] + "…"


def news(before: Progress | None, after: Progress) -> list[str]:
    """Plain lines for a pipe: only what changed since `before`."""
    known = {line.name: line for line in before.lines} if before else {}
    found = []
    for line in after.lines:
        old = known.pop(line.name, None)
        if old is None or (old.text, old.mark) != (line.text, line.mark):
            found.append(f"{line.name}: {line.text}{_AFTERWORDS.get(line.mark, '')}")
        said = old.reasons if old else ()
        found.extend(f"{line.name}: {each}" for each in line.reasons if each not in said)
    found.extend(f"{name}: gone" for name in known)
    return found
