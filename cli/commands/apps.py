"""`ls`, `ps`, `scale` and `rm`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from cli import output, words
from cli.compose.placement import REPLICAS_MAX
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from cli.progress_plan import ended
from proto import control_pb2, objects_pb2


def ls(options: argparse.Namespace) -> int:
    apps = list_apps(connect(options))
    if options.quiet:
        print("".join(f"{view.app.meta.name}\n" for view in apps), end="")
    elif options.output == "json":
        output.print_items(apps)
    else:
        now = time.time_ns() // 1_000_000
        rows = [
            (
                view.app.meta.name,
                str(view.service_count),
                f"{view.task_running_count}/{view.task_wanted_count}",
                f"{view.job_done_count}/{view.job_count}" if view.job_count else "-",
                str(view.app.generation),
                words.age(view.app.meta.updated_unix_ms, now),
            )
            for view in apps
        ]
        output.print_table(("APP", "SERVICES", "TASKS", "JOBS", "DEPLOYS", "CHANGED"), rows)
    return EXIT_OK


def list_apps(cluster: Cluster) -> Sequence[control_pb2.AppView]:
    reply = cluster.call(
        "list apps",
        lambda control: control.ListApps(control_pb2.ListAppsRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    return sorted(reply.apps, key=lambda view: view.app.meta.name)


def ps(options: argparse.Namespace) -> int:
    cluster = connect(options)
    request = control_pb2.ListTasksRequest(node=options.node, all=options.all)
    if "/" in options.target:
        request.app, _, request.service = options.target.partition("/")
    elif options.target and any(view.app.meta.name == options.target for view in list_apps(cluster)):
        request.app = options.target
    else:
        request.service = options.target
    reply = cluster.call(
        f"list tasks of {options.target}" if options.target else "list tasks",
        lambda control: control.ListTasks(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    tasks = sorted(reply.tasks, key=_order)
    if options.quiet:
        print("".join(f"{task.meta.id}\n" for task in tasks), end="")
    elif options.output == "json":
        output.print_items(tasks)
    else:
        print_tasks(tasks, reply.nodes, wide=options.output == "wide")
    return EXIT_OK


def _order(task: objects_pb2.Task) -> tuple[str, str, int, bool, int]:
    return task.app, task.service, task.slot, ended(task), -task.meta.created_unix_ms


def print_tasks(tasks: Sequence[objects_pb2.Task], nodes: Sequence[objects_pb2.Node], *, wide: bool) -> None:
    """A table of tasks; `nodes` gives the names of the hosts."""
    now = time.time_ns() // 1_000_000
    names = {node.meta.id: node.meta.name for node in nodes}
    headings = ["TASK", "NODE", "STATE", "READY", "AGE", "MESSAGE"]
    if wide:
        headings[5:5] = ["ID", "ADDRESS", "RUN", "IMAGE"]
    rows = []
    for task in tasks:
        row = [
            f"{task.app}/{task.meta.name}",
            names.get(task.node_id, task.node_id) or "-",
            state_words(task),
            "yes" if task.status.ready else "no",
            words.age(task.status.started_unix_ms or task.meta.created_unix_ms, now),
            task.status.message or task.desired_message,
        ]
        if wide:
            row[5:5] = [task.meta.id, task.address or "-", str(task.run or "-"), task.spec.container.image]
        rows.append(row)
    output.print_table(headings, rows)


def state_words(task: objects_pb2.Task) -> str:
    """ "running", "running (unhealthy)", "exited (3)", "failed (out of memory)"."""
    status = task.status
    state = words.enum(objects_pb2.TaskState.DESCRIPTOR, status.state) or "new"
    if status.out_of_memory:
        return f"{state} (out of memory)"
    if ended(task) and status.state != objects_pb2.TASK_STATE_LOST and status.finished_unix_ms:
        return f"{state} ({status.exit_code})"
    if status.state == objects_pb2.TASK_STATE_RUNNING and status.health == objects_pb2.HEALTH_UNHEALTHY:
        return f"{state} (unhealthy)"
    if status.state == objects_pb2.TASK_STATE_RUNNING and status.health == objects_pb2.HEALTH_NOT_READY:
        return f"{state} (not ready)"
    return state


def scale(options: argparse.Namespace) -> int:
    wanted = []
    for text in options.counts:
        service, equals, count = text.rpartition("=")
        if not equals or not service or not (count.isascii() and count.isdigit()):
            raise CommandFailed("scale", f"{text!r} is not SERVICE=N, like web=3", EXIT_USAGE)
        if int(count) > REPLICAS_MAX:
            raise CommandFailed("scale", f"{count} is more than {REPLICAS_MAX} tasks", EXIT_USAGE)
        wanted.append(control_pb2.ScaleServiceRequest(service=service, replicas=int(count)))
    cluster = connect(options)
    scaled = []
    for request in wanted:
        reply = _scale_one(cluster, request)
        scaled.append(reply.service)
        if options.output != "json":
            name = f"{reply.service.app}/{reply.service.meta.name}"
            print(f"{name}: {words.plural(reply.service.spec.replicas, 'task')} wanted")
    if options.output == "json":
        output.print_items(scaled)
    return EXIT_OK


def _scale_one(cluster: Cluster, request: control_pb2.ScaleServiceRequest) -> control_pb2.ScaleServiceReply:
    return cluster.call(
        f"scale {request.service} to {request.replicas}",
        lambda control: control.ScaleService(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )


def rm(options: argparse.Namespace) -> int:
    cluster, target = connect(options), options.target
    if "/" in target:
        if options.volumes:
            raise CommandFailed(f"remove {target}", "--volumes is for whole apps", EXIT_USAGE)
        cluster.call(
            f"remove {target}",
            lambda control: control.RemoveService(
                control_pb2.RemoveServiceRequest(service=target), timeout=CALL_SECONDS_MAX
            ),
        )
        services = [target]
    else:
        request = control_pb2.RemoveAppRequest(app=target, volumes=options.volumes)
        reply = cluster.call(f"remove {target}", lambda control: control.RemoveApp(request, timeout=CALL_SECONDS_MAX))
        services = [f"{target}/{name}" for name in reply.services]
    if options.output == "json":
        output.print_json({"services": services})
    else:
        print(f"Removing {target}: {', '.join(services) or 'it has no services'}")
    return EXIT_OK
