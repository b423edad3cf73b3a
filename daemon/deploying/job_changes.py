"""What operators change of jobs: their settings, their schedules, and runs that are begun by hand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from daemon.errors import Kind, Refused
from daemon.orchestration.job_runs import begin_run, going
from daemon.orchestration.kinds import has_own_volumes, is_job
from daemon.orchestration.quantities import duration_text
from daemon.orchestration.task_states import named_volumes
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.cron import CronError, parse
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

KEEP_MAX = 100
NAME_CHARACTERS_MAX = 63  # a label of DNS
ONCE_SUFFIX = "-run-"
ONCE_CHARACTERS = 6
_OVERLAPS = {
    objects.Schedule.OVERLAP_FORBID: "forbid",
    objects.Schedule.OVERLAP_ALLOW: "allow",
    objects.Schedule.OVERLAP_REPLACE: "replace",
}


def job_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """What of a job cannot be."""
    if spec.HasField("stateful") and spec.kind != objects.SERVICE_KIND_REPLICATED:
        yield "it is stateful and not replicated: leave one of the two out"
    if not is_job(spec):
        if spec.HasField("job") or spec.HasField("schedule"):
            yield "it has a job's settings and is none: give it deploy.mode replicated-job or global-job"
        return
    if spec.job.deadline_ms < 0:
        yield "its deadline is negative"
    if spec.job.keep > KEEP_MAX:
        yield f"{spec.job.keep} runs are to be kept; at most {KEEP_MAX} are possible"
    if spec.HasField("schedule"):
        try:
            if parse(spec.schedule.cron, spec.schedule.time_zone).next_after(0) is None:
                yield f"its schedule {spec.schedule.cron!r} has no moment: there is no such day"
        except CronError as error:
            yield f"its schedule {error}"


def completion_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why a job runs anew, besides those of any service."""
    if not is_job(after) or before.replicas == after.replicas:
        return []
    return [f"completions {before.replicas} -> {after.replicas}"]


def course_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why runs go another way from now on, for which nothing is run anew."""
    reasons = [
        f"job's {name} {was} -> {now}"
        for name, was, now in (
            ("parallelism", before.job.parallelism or "all", after.job.parallelism or "all"),
            ("deadline", _duration(before.job.deadline_ms), _duration(after.job.deadline_ms)),
            ("runs kept", before.job.keep or "default", after.job.keep or "default"),
        )
        if was != now
    ]
    if before.schedule != after.schedule or before.HasField("schedule") != after.HasField("schedule"):
        reasons.append(f"schedule {_schedule(before)} -> {_schedule(after)}")
    return reasons


def settle_runs(before: objects.Service, after: objects.Service) -> None:
    """A new schedule begins now; what is no job has no runs. Changes `after` in place."""
    if not is_job(after.spec):
        after.ClearField("runs")
    if before.spec.schedule != after.spec.schedule or before.removing or not after.spec.HasField("schedule"):
        after.scheduled_to_unix_ms = after.next_run_unix_ms = 0


def plan_trigger(service: objects.Service, now_unix_ms: int) -> tuple[objects.Service, TransactionBuilder]:
    """The job as it is with another run. Raises Refused."""
    name = f"{service.app}/{service.meta.name}"
    if not is_job(service.spec):
        raise Refused(f"service {name} is no job: it runs all the time", Kind.NOT_POSSIBLE)
    if service.removing:
        raise Refused(f"job {name} is being removed", Kind.NOT_POSSIBLE)
    overlap = service.spec.schedule.overlap  # forbid, where there is no schedule
    if overlap == objects.Schedule.OVERLAP_FORBID and (runs := going(service)):
        raise Refused(
            f"job {name} is running (run {runs[-1].number}); wait for its end: fairway ps {name}", Kind.NOT_POSSIBLE
        )
    after = objects.Service()
    after.CopyFrom(service)
    begin_run(after, now_unix_ms)
    return after, TransactionBuilder().update(after)


def plan_run_once(
    store: Store, service: objects.Service, request: control.RunOnceRequest, new_id: Callable[[], str]
) -> tuple[objects.Service, TransactionBuilder]:
    """A job of one task as that of a service, without what its clients see of it. Raises Refused."""
    name = f"{service.app}/{service.meta.name}"
    if service.removing:
        raise Refused(f"service {name} is being removed", Kind.NOT_POSSIBLE)
    if has_own_volumes(service.spec) and named_volumes(service.spec):
        raise Refused(
            f"each task of service {name} has volumes of its own, so there is none for another task: "
            f"use `fairway exec {name}`",
            Kind.NOT_POSSIBLE,
        )
    identifier = new_id()
    once = objects.Service(app=service.app, generation=1, image_digest=service.image_digest)
    short = service.meta.name[: NAME_CHARACTERS_MAX - len(ONCE_SUFFIX) - ONCE_CHARACTERS]
    once.meta.id, once.meta.name = identifier, f"{short}{ONCE_SUFFIX}{identifier[-ONCE_CHARACTERS:].lower()}"
    once.meta.tenant, once.meta.format = service.meta.tenant, service.meta.format
    once.spec.CopyFrom(spec_once(service.spec))
    container = once.spec.container
    if request.HasField("command"):
        container.command.CopyFrom(request.command)
    container.environment.update(request.environment)
    container.user = request.user or container.user
    container.working_dir = request.working_dir or container.working_dir
    if request.attached:
        container.attached, container.tty, container.stdin_open = True, request.tty, request.stdin
    return once, TransactionBuilder().create(once).needs(WORKLOADS_LEVEL)


def spec_once(spec: objects.ServiceSpec) -> objects.ServiceSpec:
    """What is left of a service for one task that is no part of it and is not tried again."""
    once = objects.ServiceSpec(
        kind=objects.SERVICE_KIND_JOB,
        job=objects.Job(once=True),
        replicas=1,
        restart=objects.RestartPolicy(condition=objects.RestartPolicy.CONDITION_NONE),
        endpoint_mode=objects.ENDPOINT_MODE_DNSRR,
        resources=spec.resources,
        constraints=spec.constraints,
        networks=spec.networks,
        external_networks=spec.external_networks,
        external_volumes=spec.external_volumes,
    )
    once.container.CopyFrom(spec.container)
    for name in ("healthcheck", "post_start", "pre_stop"):
        once.container.ClearField(name)
    once.container.ClearField("probes")
    once.container.healthcheck.test.append("NONE")
    if spec.HasField("policy"):
        once.policy.CopyFrom(spec.policy)
    return once


def _duration(milliseconds: int) -> str:
    return duration_text(milliseconds) if milliseconds else "none"


def _schedule(spec: objects.ServiceSpec) -> str:
    if not spec.HasField("schedule"):
        return "none"
    schedule = spec.schedule
    missed = "run missed" if schedule.run_missed else "skip missed"
    return f"'{schedule.cron}' ({schedule.time_zone or 'UTC'}, {missed}, overlap {_OVERLAPS[schedule.overlap]})"
