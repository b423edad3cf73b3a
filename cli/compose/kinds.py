"""What kind of service it is: `deploy.mode`, and what goes with it under `x-fairway`."""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.cron import CronError, parse

JOB_TRIES_MAX = 3  # of a task of a job after its first, where the file says nothing
PARALLELISM_MAX = 10_000
KEEP_MAX = 100
_MODES = {
    "replicated": objects_pb2.SERVICE_KIND_REPLICATED,
    "global": objects_pb2.SERVICE_KIND_GLOBAL,
    "replicated-job": objects_pb2.SERVICE_KIND_JOB,
    "global-job": objects_pb2.SERVICE_KIND_GLOBAL_JOB,
}
_FOLLOWING = (objects_pb2.SERVICE_KIND_GLOBAL, objects_pb2.SERVICE_KIND_GLOBAL_JOB)
_JOBS = (objects_pb2.SERVICE_KIND_JOB, objects_pb2.SERVICE_KIND_GLOBAL_JOB)
_OVERLAPS = {
    "forbid": objects_pb2.Schedule.OVERLAP_FORBID,
    "allow": objects_pb2.Schedule.OVERLAP_ALLOW,
    "replace": objects_pb2.Schedule.OVERLAP_REPLACE,
}
_NOT_FOR_JOBS = ("update_config", "rollback_config")


def read_mode(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """`deploy.mode`."""
    spec.kind = reader.choice(field, _MODES, objects_pb2.SERVICE_KIND_REPLICATED)


def read_job(reader: Reader, field: Field, job: objects_pb2.Job) -> None:
    """`x-fairway.job`."""
    job.SetInParent()
    entries = reader.known_entries(
        field,
        frozenset({"parallelism", "deadline", "keep"}),
        {"retries": "say deploy.restart_policy.max_attempts", "completions": "say deploy.replicas"},
    )
    if "parallelism" in entries:
        job.parallelism = reader.integer(entries["parallelism"], 1, PARALLELISM_MAX)
    if "deadline" in entries:
        job.deadline_ms = reader.duration_ms(entries["deadline"], low=1)
    if "keep" in entries:
        job.keep = reader.integer(entries["keep"], 1, KEEP_MAX)


def read_schedule(reader: Reader, field: Field, schedule: objects_pb2.Schedule) -> None:
    """`x-fairway.schedule`."""
    schedule.SetInParent()
    entries = reader.known_entries(field, frozenset({"cron", "time_zone", "missed", "overlap"}))
    if "cron" not in entries:
        reader.refuse(field, "has no cron, like '0 3 * * *' for every day at 3:00")
        return
    schedule.cron = reader.text(entries["cron"])
    try:
        if schedule.cron and parse(schedule.cron).next_after(0) is None:
            reader.refuse(entries["cron"], f"{schedule.cron!r} never comes: there is no such day")
    except CronError as error:
        reader.refuse(entries["cron"], str(error))
    if "time_zone" in entries:  # which zones there are is the cluster's to say
        schedule.time_zone = reader.text(entries["time_zone"])
    if "missed" in entries:
        schedule.run_missed = reader.choice(entries["missed"], {"skip": False, "run_once": True}, False)
    if "overlap" in entries:
        schedule.overlap = reader.choice(entries["overlap"], _OVERLAPS, objects_pb2.Schedule.OVERLAP_FORBID)


def read_stateful(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """`x-fairway.stateful`: true, or a mapping with `order`."""
    if field.is_mapping:
        entries = reader.known_entries(field, frozenset({"order"}))
        spec.stateful.SetInParent()
        if "order" in entries:
            spec.stateful.unordered = reader.choice(entries["order"], {"ordered": False, "unordered": True}, False)
    elif reader.boolean(field):
        spec.stateful.SetInParent()


def finish_kind(reader: Reader, entries: dict[str, Field], spec: objects_pb2.ServiceSpec) -> None:
    """Checks what was said against the kind, when all of the service (`entries`) has been read."""
    deploy = reader.entries(entries["deploy"]) if "deploy" in entries else {}
    extension = reader.entries(entries["x-fairway"]) if "x-fairway" in entries else {}
    if spec.HasField("stateful") and spec.kind != objects_pb2.SERVICE_KIND_REPLICATED:
        reader.refuse(extension["stateful"], "is for replicated services")
    if spec.kind in _FOLLOWING:
        spec.replicas = 0
        for said in (entries.get("scale"), deploy.get("replicas")):
            if said is not None:
                reader.refuse(said, "has no meaning with a global mode, which runs one task on each host")
    if spec.kind not in _JOBS:
        for key in ("job", "schedule"):
            if key in extension:
                reader.refuse(extension[key], "is for jobs: say deploy.mode: replicated-job, or global-job")
        return
    for key in _NOT_FOR_JOBS:
        if key in deploy:
            reader.refuse(deploy[key], "has no meaning for a job, which runs anew when it is changed")
    if "rollout" in extension:
        reader.refuse(extension["rollout"], "has no meaning for a job, which runs anew when it is changed")
    _finish_restart(reader, entries, deploy, spec.restart)


def _finish_restart(
    reader: Reader, entries: dict[str, Field], deploy: dict[str, Field], policy: objects_pb2.RestartPolicy
) -> None:
    """A job's tasks are tried again when they fail, a few times unless the file says otherwise."""
    said = reader.entries(deploy["restart_policy"]) if "restart_policy" in deploy else {}
    condition = said.get("condition") or entries.get("restart")
    if policy.condition == objects_pb2.RestartPolicy.CONDITION_ANY:
        if condition is not None:
            reader.refuse(condition, "would run a job that is done again; use on-failure or none")
        policy.condition = objects_pb2.RestartPolicy.CONDITION_ON_FAILURE
    if not policy.max_attempts and "max_attempts" not in said and entries.get("restart") is None:
        policy.max_attempts = JOB_TRIES_MAX
