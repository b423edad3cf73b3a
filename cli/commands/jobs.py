"""`trigger` and `run`: a job's next run now, and a task that runs once."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Iterator

from cli import output, words
from cli.commands import attached_run
from cli.commands.attached_run import EXIT_NOT_STARTED
from cli.commands.exec import given_environment
from cli.compose.service import STOP_GRACE_MS
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TASKS_FAILED,
    EXIT_TIMED_OUT,
    CommandFailed,
)
from cli.following import follow
from cli.live import Live
from cli.moments import option_duration_ms
from cli.progress_plan import Progress, ended, job_line, reason
from cli.pulling import pull_for
from cli.watching import WaitedTooLong, watch_tasks
from proto import control_pb2, control_pb2_grpc, host_pb2, objects_pb2

APP_PREFIX = "run-"
IMAGE_SERVICE = "task"
ATTACHING_LEVEL = 2  # raft/features.py


def trigger(options: argparse.Namespace) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    cluster, asked = connect(options), f"trigger {options.service}"
    request = control_pb2.TriggerJobRequest(service=options.service, request_id=secrets.token_hex(13))
    reply = cluster.call(asked, lambda control: control.TriggerJob(request, timeout=CALL_SECONDS_MAX), repeatable=True)
    name = f"{reply.service.app}/{reply.service.meta.name}"
    as_json = options.output == "json"
    if as_json:
        output.print_json(output.plain(reply))
    else:
        print(f"Run {reply.run} of {name} begins.")
    if options.detach:
        return EXIT_OK
    live = Live(sys.stderr if as_json else sys.stdout)
    watched = control_pb2.ListTasksRequest(app=reply.service.app, service=reply.service.meta.name, all=True)
    try:
        for listing in watch_tasks(cluster, asked, watched, time.monotonic() + timeout_ms / 1000):
            if listing.revision < reply.revision or not listing.services:
                continue
            line = job_line(listing.services[0], list(listing.tasks), reply.run)
            live.show(Progress((line,)))
            if line.mark == "done":
                return EXIT_OK
            if line.mark == "failed":
                raise CommandFailed(asked, f"{line.text}; see: fairway logs {name}", EXIT_TASKS_FAILED)
    except WaitedTooLong:
        message = f"not done after {words.duration(timeout_ms)}; it goes on in the cluster: fairway show {name}"
        raise CommandFailed(asked, message, EXIT_TIMED_OUT) from None
    except KeyboardInterrupt:
        print(f"\nDetached. The run goes on; see: fairway show {name}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_FAILED


def run(options: argparse.Namespace) -> int:
    """Ends with the task's own exit status."""
    attached_run.check(options)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    cluster, asked = connect(options), f"run {options.target}"
    request = control_pb2.RunOnceRequest(
        service=options.target,
        environment=given_environment("run", options.env, options.tty),
        user=options.user,
        working_dir=options.workdir,
        request_id=secrets.token_hex(13),
        attached=options.interactive or options.tty,
        tty=options.tty,
        stdin=options.interactive,
    )
    if request.attached:
        _require_attaching(cluster, asked)
    if command:
        request.command.values.extend(command)
    if _is_service(cluster, options.target):
        reply = cluster.call(asked, lambda control: control.RunOnce(request, timeout=CALL_SECONDS_MAX), repeatable=True)
        app, service, revision = reply.service.app, reply.service.meta.name, reply.revision
    else:
        app, service = f"{APP_PREFIX}{secrets.token_hex(4)}", IMAGE_SERVICE
        revision = _run_image(cluster, asked, app, request)
    if options.detach:
        print(f"{app}/{service}")
        return EXIT_OK
    try:
        if request.attached:
            return attached_run.attach(
                options,
                connect(options),
                asked,
                lambda: attached_run.placed_task(cluster, asked, app, service, revision),
            )
        return _follow(options, cluster, asked, app, service, revision)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        with contextlib.suppress(CommandFailed):  # it is removed by itself some time later
            _remove(cluster, asked, app, service)


def _require_attaching(cluster: Cluster, asked: str) -> None:
    """An older host would start the task without waiting for anybody."""
    reply = cluster.call(
        asked,
        lambda control: control.GetCluster(control_pb2.GetClusterRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if reply.cluster.feature_level < ATTACHING_LEVEL:
        message = "not every host knows -i and -t as yet: upgrade fairway on those that run an older build"
        raise CommandFailed(asked, message)


def _is_service(cluster: Cluster, target: str) -> bool:
    """What is no service is taken for an image."""
    if ":" in target or "@" in target:
        return False
    request = control_pb2.ListServicesRequest(service=target)
    try:
        found = cluster.call(
            f"find {target}",
            lambda control: control.ListServices(request, timeout=CALL_SECONDS_MAX),
            repeatable=True,
        )
    except CommandFailed as failure:
        if failure.exit_code != EXIT_FAILED:
            raise
        return False
    return bool(found.services)


def _run_image(cluster: Cluster, asked: str, app: str, request: control_pb2.RunOnceRequest) -> int:
    """Deploys an app of one job that has this image; the revision from which on it is there."""
    spec = objects_pb2.ServiceSpec(
        kind=objects_pb2.SERVICE_KIND_JOB, job=objects_pb2.Job(once=True), replicas=1, networks=["default"]
    )
    spec.restart.condition = objects_pb2.RestartPolicy.CONDITION_NONE
    spec.endpoint_mode = objects_pb2.ENDPOINT_MODE_DNSRR
    container = spec.container
    container.image, container.stop_grace_ms = request.service, STOP_GRACE_MS
    container.healthcheck.test.append("NONE")
    container.environment.update(request.environment)
    container.user, container.working_dir = request.user, request.working_dir
    container.attached, container.tty, container.stdin_open = request.attached, request.tty, request.stdin
    if request.HasField("command"):
        container.command.CopyFrom(request.command)
    pull_for(cluster, [spec], sys.stderr)
    deploy = control_pb2.DeployAppRequest(request_id=request.request_id)
    deploy.app.name = app
    deploy.app.services[IMAGE_SERVICE].CopyFrom(spec)
    reply = cluster.call(asked, lambda control: control.DeployApp(deploy, timeout=CALL_SECONDS_MAX), repeatable=True)
    for warning in reply.plan.warnings:
        output.warn(warning)
    return reply.revision


def _remove(cluster: Cluster, asked: str, app: str, service: str) -> None:
    whole = app.startswith(APP_PREFIX) and service == IMAGE_SERVICE

    def call(control: control_pb2_grpc.ControlStub) -> object:
        if whole:
            return control.RemoveApp(control_pb2.RemoveAppRequest(app=app), timeout=CALL_SECONDS_MAX)
        request = control_pb2.RemoveServiceRequest(service=f"{app}/{service}")
        return control.RemoveService(request, timeout=CALL_SECONDS_MAX)

    cluster.call(asked, call, repeatable=True)


def _follow(options: argparse.Namespace, cluster: Cluster, asked: str, app: str, service: str, revision: int) -> int:
    """Prints what the task writes until it has ended; its exit status."""
    timeout_ms = option_duration_ms("--timeout", options.timeout) if options.timeout else 0
    deadline = time.monotonic() + timeout_ms / 1000 if timeout_ms else float("inf")
    printer: _Printer | None = None
    said = ""
    watched = control_pb2.ListTasksRequest(app=app, service=service, all=True)
    try:
        for listing in watch_tasks(cluster, asked, watched, min(deadline, time.monotonic() + 10 * 365 * 86_400)):
            if listing.revision < revision:
                continue
            if not listing.services:
                raise CommandFailed(asked, "somebody removed it before its end")
            if not listing.tasks:
                continue
            task = listing.tasks[0]
            if task.node_id and printer is None:
                printer = _Printer(options, task.meta.id)
            if ended(task):
                if printer is not None:
                    printer.finish()
                return _exit_status(asked, task)
            if not task.node_id and task.status.message and reason(task) != said:
                said = reason(task)
                print(f"fairway: {said}", file=sys.stderr)
    except WaitedTooLong:
        raise CommandFailed(
            asked, f"not done after {words.duration(timeout_ms)}; it is stopped", EXIT_TIMED_OUT
        ) from None
    return EXIT_FAILED


def _exit_status(asked: str, task: objects_pb2.Task) -> int:
    status = task.status
    if status.state == objects_pb2.TASK_STATE_LOST:
        raise CommandFailed(asked, f"its host is lost: {status.message}")
    if status.exit_code or status.state == objects_pb2.TASK_STATE_EXITED:
        if status.out_of_memory:
            print(f"fairway: {status.message}", file=sys.stderr)
        return status.exit_code
    raise CommandFailed(asked, status.message or "it failed", EXIT_NOT_STARTED)


class _Printer:
    """Prints the lines of one task as they come, each once, over a connection of its own."""

    def __init__(self, options: argparse.Namespace, task_id: str) -> None:
        self._options = options
        self._task_id = task_id
        self._newest: tuple[int, int] = (0, 0)  # time of the newest line that was printed, and how many have that time
        self._lock = threading.Lock()
        self._finished = False
        threading.Thread(target=self._follow, daemon=True).start()

    def finish(self) -> None:
        """The task has ended: prints what is left of its log."""
        with self._lock:
            self._finished = True
        for line in self._new_lines(follow_on=False):
            self._print(line)

    def _follow(self) -> None:
        with contextlib.suppress(CommandFailed):
            for line in self._new_lines(follow_on=True):
                with self._lock:
                    if self._finished:
                        return
                    self._print(line)

    def _new_lines(self, follow_on: bool) -> Iterator[host_pb2.LogLine]:
        """The lines of the log but for those that have been printed, of which several may have the same time."""
        request = control_pb2.LogsRequest(target=self._task_id, follow=follow_on, tail_lines=-1)
        repeats: list[tuple[int, int]] = []

        def invoke(control: control_pb2_grpc.ControlStub) -> Iterator[host_pb2.LogChunk]:
            repeats[:] = [self._newest]  # each connection begins with the first line
            return control.Logs(request)

        for chunk in follow(connect(self._options), "read its log", invoke, again=follow_on):
            for line in chunk.lines:
                newest_ns, count = repeats[0]
                if line.unix_ns == newest_ns and count:
                    repeats[:] = [(newest_ns, count - 1)]
                elif line.unix_ns >= newest_ns:
                    yield line

    def _print(self, line: host_pb2.LogLine) -> None:
        newest_ns, count = self._newest
        self._newest = (line.unix_ns, count + 1 if line.unix_ns == newest_ns else 1)
        stream = sys.stderr if line.standard_error else sys.stdout
        stream.buffer.write(line.text + b"\n")
        stream.flush()
