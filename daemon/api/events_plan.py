"""What happened, in words, from the changes of the store. Pure."""

from __future__ import annotations

from typing import cast

from daemon.orchestration.kinds import follows_hosts, is_job
from daemon.orchestration.restart_plan import ending
from daemon.orchestration.task_files import kind_word
from proto import objects_pb2 as objects
from raft.store import Change, ChangeBatch

Words = tuple[str, str, bool]  # action, message, warning

_TASK_ACTIONS = {
    objects.TASK_STATE_ASSIGNED: "assigned",
    objects.TASK_STATE_RUNNING: "running",
    objects.TASK_STATE_EXITED: "exited",
    objects.TASK_STATE_FAILED: "failed",
    objects.TASK_STATE_LOST: "lost",
}


def events_of(batch: ChangeBatch) -> list[objects.Event]:
    """Events in the order of the changes; what nobody needs to read about gives none."""
    found = []
    for change in batch.changes:
        for action, message, warning in _words(change):
            found.append(_event(batch.revision, change, action, message, warning))
    return found


def _words(change: Change) -> list[Words]:
    before, after = change.before, change.after
    match change.table:
        case "tasks":
            return _task(cast(objects.Task | None, before), cast(objects.Task | None, after))
        case "nodes":
            return _node(cast(objects.Node | None, before), cast(objects.Node | None, after))
        case "services":
            return _service(cast(objects.Service | None, before), cast(objects.Service | None, after))
        case "images":
            return _image(cast(objects.Image | None, before), cast(objects.Image | None, after))
        case "apps" | "volumes" | "networks" | "policies" if before is None or after is None:
            return [("created" if before is None else "removed", "", False)]
        case "policies":
            return [("updated", "", False)]
        case "task_files":
            version = cast(objects.TaskFile, after or before).version
            return [("created" if before is None else "removed", f"version {version}", False)]
    return []


def _task(before: objects.Task | None, after: objects.Task | None) -> list[Words]:
    if after is None:
        return []
    words: list[Words] = []
    state = after.status.state
    was = before.status.state if before is not None else objects.TASK_STATE_UNSPECIFIED
    if state == objects.TASK_STATE_PENDING:
        said = before.status.message if before is not None else ""
        if after.status.message and after.status.message != said:
            words.append(("pending", after.status.message, True))
    elif state != was and state in _TASK_ACTIONS:
        bad = state in (objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST) or (
            state == objects.TASK_STATE_EXITED
            and after.status.exit_code != 0
            and after.desired == objects.DESIRED_STATE_RUNNING
        )
        over = state in (objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED)
        words.append((_TASK_ACTIONS[state], ending(after) if over else after.status.message, bad))
    if before is not None and before.status.ready != after.status.ready and state == objects.TASK_STATE_RUNNING:
        words.append(("ready", "", False) if after.status.ready else ("unready", after.status.message, True))
    told = before is None or before.desired != after.desired
    if told and after.desired == objects.DESIRED_STATE_STOPPED and after.desired_message:
        words.append(("stopping", after.desired_message, False))
    return words


def _node(before: objects.Node | None, after: objects.Node | None) -> list[Words]:
    if after is None:
        return [("removed", "", False)]
    if before is None:
        return [("joined", after.address, False)]
    words: list[Words] = []
    if before.state != after.state:
        if after.state == objects.NODE_STATE_DOWN:
            words.append(("down", after.state_message, True))
        elif after.state == objects.NODE_STATE_SILENT:
            words.append(("silent", after.state_message, True))
        elif after.state == objects.NODE_STATE_READY:
            words.append(("ready", after.state_message, bool(after.state_message)))
    if before.availability != after.availability:
        name = objects.Availability.Name(after.availability).removeprefix("AVAILABILITY_").lower()
        words.append((name, "", False))
    if before.voter != after.voter:
        words.append(("voter", "has a vote now" if after.voter else "has no vote any more", False))
    return words


def _service(before: objects.Service | None, after: objects.Service | None) -> list[Words]:
    if after is None:
        return [("removed", "", False)]
    if before is None:
        return [("created", _extent(after.spec), False)]
    if after.removing and not before.removing:
        return [("removing", "its tasks are being stopped", False)]
    words: list[Words] = []
    if before.generation != after.generation:
        words.append(("updated", f"version {after.generation}", False))
    if before.rollout.state != after.rollout.state or before.generation != after.generation:
        words += _rollout(after)
    if after.traffic.switched and not before.traffic.switched:
        words.append(("switched", f"traffic goes to version {after.traffic.generation}", False))
    if before.spec.replicas != after.spec.replicas:
        by_load = before.autoscaling.changed_unix_ms != after.autoscaling.changed_unix_ms
        why = f" ({after.autoscaling.changed_message})" if by_load else ""
        words.append(("scaled", f"{_extent(before.spec)} -> {_extent(after.spec)}{why}", False))
    words += _runs(before, after)
    return words


def _runs(before: objects.Service, after: objects.Service) -> list[Words]:
    known = {run.number: run.outcome for run in before.runs}
    words: list[Words] = []
    for run in after.runs:
        if run.number not in known and run.number > before.run_count:
            words.append(("run", f"run {run.number} began", False))
        if run.outcome and known.get(run.number, objects.JobRun.OUTCOME_NONE) != run.outcome:
            outcome = objects.JobRun.Outcome.Name(run.outcome).removeprefix("OUTCOME_").lower()
            why = f": {run.message}" if run.message else ""
            failed = run.outcome == objects.JobRun.OUTCOME_FAILED
            words.append(
                (f"run-{outcome}", f"run {run.number}, {run.succeeded} of {run.wanted} completed{why}", failed)
            )
    return words


def _extent(spec: objects.ServiceSpec) -> str:
    if follows_hosts(spec):
        return "one task on each host"
    return f"{spec.replicas} {'completions' if is_job(spec) else 'replicas'}"


def _rollout(service: objects.Service) -> list[Words]:
    rollout = service.rollout
    match rollout.state:
        case objects.Rollout.STATE_GOING if rollout.back_to:
            return [("rolling back", rollout.message or f"to revision {rollout.back_to}", True)]
        case objects.Rollout.STATE_PAUSED:
            return [("paused", rollout.message, False)]
        case objects.Rollout.STATE_FAILED:
            return [("update failed", rollout.message, True)]
        case objects.Rollout.STATE_WAITING:
            return [("waiting", rollout.message, False)]
        case objects.Rollout.STATE_DONE:
            return [("rolled back" if rollout.back_to else "rolled out", rollout.message, False)]
    return []


def _image(before: objects.Image | None, after: objects.Image | None) -> list[Words]:
    if after is None:
        return [("removed", "", False)]
    if before is None or before.manifest_digest != after.manifest_digest:
        return [("loaded", after.manifest_digest, False)]
    return []


def _event(revision: int, change: Change, action: str, message: str, warning: bool) -> objects.Event:
    subject = cast(objects.Task, change.after or change.before)  # any kind: only Meta and app are read
    app = getattr(subject, "app", "")
    name = subject.meta.name
    return objects.Event(
        unix_ms=subject.meta.updated_unix_ms,
        kind=_kind(change),
        action=action,
        subject_id=change.id,
        subject=f"{app}/{name}" if app else name,
        message=message,
        tenant=subject.meta.tenant,
        app=app or (name if change.table == "apps" else ""),
        revision=revision,
        warning=warning,
    )


def _kind(change: Change) -> str:
    if change.table == "task_files":
        return kind_word(cast(objects.TaskFile, change.after or change.before).kind)
    return "policy" if change.table == "policies" else change.table.removesuffix("s")
