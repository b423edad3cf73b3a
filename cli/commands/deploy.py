"""`deploy` and `plan`."""

from __future__ import annotations

import argparse
import secrets
import sys

from cli import output, words
from cli.compose_files import read_project
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_OK, CommandFailed
from cli.live import Live
from cli.moments import option_duration_ms
from cli.pulling import pull_for
from cli.rollout_following import Following
from proto import control_pb2

FILES_LEVEL = 2  # raft/features.py
_MARKS = {
    control_pb2.ServiceChange.CREATE: ("+", "green"),
    control_pb2.ServiceChange.UPDATE: ("~", "yellow"),
    control_pb2.ServiceChange.SCALE: ("~", "yellow"),
    control_pb2.ServiceChange.REMOVE: ("-", "red"),
}


def deploy(options: argparse.Namespace) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    request = _request(options)
    name = request.app.name
    cluster = connect(options)
    _require_files_known(cluster, f"deploy {name}", request.app)
    as_json = options.output == "json"
    stream = sys.stderr if as_json else sys.stdout
    pull_for(cluster, request.app.services.values(), stream, policy=options.pull, leave_missing=options.detach)
    # The request id makes the retry on another address harmless.
    reply = cluster.call(
        f"deploy {name}",
        lambda control: control.DeployApp(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if as_json:
        output.print_json(output.plain(reply))
    else:
        print(f"Deploying {name}: {counts(reply.plan)}")
    for warning in reply.plan.warnings:
        output.warn(warning)
    if options.detach:
        return EXIT_OK
    changed = {change.service for change in reply.plan.changes if change.action != control_pb2.ServiceChange.UNCHANGED}
    following = Following(f"deploy {name}", control_pb2.ListTasksRequest(app=name, all=True), reply.revision, changed)
    return following.follow(cluster, timeout_ms, Live(stream), f"Deployed {name}")


def plan(options: argparse.Namespace) -> int:
    request = _request(options)
    cluster = connect(options)
    _require_files_known(cluster, f"plan {request.app.name}", request.app)
    reply = cluster.call(
        f"plan {request.app.name}",
        lambda control: control.PlanApp(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    print("\n".join(render_plan(request.app.name, reply, output.colours(sys.stdout))))
    for warning in reply.warnings:
        output.warn(warning)
    return EXIT_OK


def _require_files_known(cluster: Cluster, asked: str, app: control_pb2.AppSpec) -> None:
    """A leader of an older build would pass over secrets and configs, and start tasks without them."""
    if not any(spec.container.files for spec in app.services.values()):
        return
    reply = cluster.call(
        asked,
        lambda control: control.GetCluster(control_pb2.GetClusterRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if reply.cluster.feature_level < FILES_LEVEL:
        raise CommandFailed(
            asked,
            f"secrets and configs need feature level {FILES_LEVEL}, the cluster is at "
            f"{max(reply.cluster.feature_level, 1)}: upgrade fairway on the hosts that run an older build "
            "(`fairway node ls -o wide` shows them)",
        )


def _request(options: argparse.Namespace) -> control_pb2.DeployAppRequest:
    return control_pb2.DeployAppRequest(app=read_project(options).spec, request_id=secrets.token_hex(13))


def render_plan(name: str, reply: control_pb2.PlanAppReply, colour: bool) -> list[str]:
    """+ create, ~ update with its reasons, - remove, and the counts."""
    lines = []
    for change in reply.changes:
        if change.action not in _MARKS:
            continue
        mark, paint_with = _MARKS[change.action]
        lines.append(output.paint(f"{mark} service {change.service}", paint_with, colour) + _extent(change))
        lines.extend(f"      {reason}" for reason in change.reasons)
    for sign, paint_with, kind, names in (
        ("+", "green", "network", reply.networks_created),
        ("-", "red", "network", reply.networks_removed),
        ("+", "green", "volume", reply.volumes_created),
    ):
        lines.extend(output.paint(f"{sign} {kind} {each}", paint_with, colour) for each in names)
    return [*lines, f"{name}: {counts(reply)}"]


def _extent(change: control_pb2.ServiceChange) -> str:
    if change.action == control_pb2.ServiceChange.CREATE:
        return f": {words.plural(change.replicas_after, 'task')}"
    if change.action == control_pb2.ServiceChange.REMOVE:
        return f": {words.plural(change.replicas_before, 'task')} stopped"
    parts = []
    if change.replicas_before != change.replicas_after:
        parts.append(f"{change.replicas_before} -> {words.plural(change.replicas_after, 'task')}")
    if change.tasks_replaced:
        parts.append(f"{words.plural(change.tasks_replaced, 'task')} replaced")
    return f": {', '.join(parts)}" if parts else ""


def counts(reply: control_pb2.PlanAppReply) -> str:
    """ "2 services to create, 1 to update, 3 unchanged"."""
    change = control_pb2.ServiceChange
    actions = [each.action for each in reply.changes]
    updated = actions.count(change.UPDATE) + actions.count(change.SCALE)
    parts = [
        f"{number} {word}"
        for number, word in (
            (actions.count(change.CREATE), "to create"),
            (updated, "to update"),
            (actions.count(change.REMOVE), "to remove"),
            (actions.count(change.UNCHANGED), "unchanged"),
        )
        if number
    ]
    if not parts:
        return "nothing to change"
    return "services: " + ", ".join(parts)
