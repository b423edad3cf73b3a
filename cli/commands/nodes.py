"""`node ls`, `show`, `cordon`, `drain`, `activate`, `rm` and `label`."""

from __future__ import annotations

import argparse
import sys
import time

from cli import device_lines, output, words
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_INTERRUPTED, EXIT_OK, EXIT_TIMED_OUT, EXIT_USAGE, CommandFailed
from cli.live import Live
from cli.moments import option_duration_ms
from cli.progress_plan import drain_progress
from cli.watching import WaitedTooLong, watch_tasks
from proto import control_pb2, objects_pb2

REASONS_SECONDS = 2.0  # how often a drain asks why replacements are pending


def ls(options: argparse.Namespace) -> int:
    nodes = sorted(_list(connect(options), "list nodes", ""), key=lambda view: view.node.meta.name)
    if options.quiet:
        print("".join(f"{view.node.meta.name}\n" for view in nodes), end="")
    elif options.output == "json":
        output.print_items(nodes)
    else:
        print_nodes(nodes, wide=options.output == "wide")
    return EXIT_OK


def print_nodes(nodes: list[control_pb2.NodeView], *, wide: bool) -> None:
    now = time.time_ns() // 1_000_000
    headings = ["NODE", "STATE", "ROLE", "TASKS", "ADDRESS", "CPU", "MEMORY", "AGE", "MESSAGE"]
    if wide:
        headings[8:8] = ["ID", "BLOCK", "VERSION", "KERNEL", "LABELS"]
    rows = []
    for view in nodes:
        node, description = view.node, view.node.description
        row = [
            node.meta.name,
            state_words(node),
            role_words(view),
            str(view.task_count),
            node.address,
            f"{words.cores(view.cpu_reserved_millis)}/{words.cores(description.cpu_millis)}",
            f"{words.size(view.memory_reserved_bytes)}/{words.size(description.memory_bytes)}",
            words.age(node.meta.created_unix_ms, now),
            node.state_message or "; ".join(description.missing_features) or _troubles(node),
        ]
        if wide:
            labels = ",".join(f"{key}={value}" for key, value in sorted(node.meta.labels.items()))
            row[8:8] = [
                node.meta.id,
                node.network.block,
                description.fairway_version,
                description.kernel,
                labels,
            ]
        rows.append(row)
    output.print_table(headings, rows)


def _troubles(node: objects_pb2.Node) -> str:
    """What the host says of itself; paths between hosts are for `show` and `doctor`."""
    return "; ".join(each.kind for each in node.conditions if not each.node_id)


def state_words(node: objects_pb2.Node) -> str:
    """ "ready", "down", "ready, cordoned", "new, draining"."""
    state = words.enum(objects_pb2.NodeState.DESCRIPTOR, node.state) or "new"
    if node.availability in (objects_pb2.AVAILABILITY_CORDONED, objects_pb2.AVAILABILITY_DRAINING):
        state += ", " + words.enum(objects_pb2.Availability.DESCRIPTOR, node.availability)
    return state


def role_words(view: control_pb2.NodeView) -> str:
    if view.leader:
        return "leader"
    if view.node.voter:
        return "voter"
    return "learner" if view.node.role == objects_pb2.NODE_ROLE_VOTER else "worker"


def show(options: argparse.Namespace) -> int:
    cluster = connect(options)
    view = _one(cluster, f"show node {options.node}", options.node)
    if options.output == "json":
        output.print_json(output.plain(view))
        return EXIT_OK
    node, description = view.node, view.node.description
    now = time.time_ns() // 1_000_000
    system = f"{description.operating_system}, kernel {description.kernel}, {description.architecture}"
    level = f"feature level {max(description.feature_level, 1)}"
    runtimes = ", ".join(description.runtimes) or "runc"
    containerd = f"containerd {description.containerd_version} with {runtimes}"
    software = f"fairway {description.fairway_version} ({level}), {containerd}"
    rows = [
        ("Node", node.meta.name),
        ("Id", node.meta.id),
        ("State", f"{state_words(node)}, for {words.age(node.state_since_unix_ms, now)}"),
        ("Message", node.state_message),
        ("Lacks", "; ".join(description.missing_features)),
        ("Role", role_words(view)),
        ("Address", f"{node.address} (API port {node.api_port})"),
        ("Tasks", f"{view.task_count} on the addresses {node.network.block}"),
        ("CPU", _used(words.cores(view.cpu_reserved_millis), words.cores(description.cpu_millis))),
        ("Memory", _used(words.size(view.memory_reserved_bytes), words.size(description.memory_bytes))),
        ("System", f"{system}, cgroup {description.cgroup_version}"),
        ("Software", software),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(node.meta.labels.items()))),
        ("Certificate", f"good until {words.timestamp(node.certificate_expires_unix_ms)}"),
        ("Last heard", f"{words.duration(view.last_heard_ms)} ago"),
        *(
            ("Condition", f"{each.kind}: {each.message}, for {words.age(each.since_unix_ms, now)}")
            for each in node.conditions
        ),
    ]
    print("\n".join(f"{label + ':':<13}{text}" for label, text in rows if text))
    if description.devices:
        request = control_pb2.ListTasksRequest(node=node.meta.id, all=True)
        tasks = cluster.call(
            f"show node {options.node}",
            lambda control: control.ListTasks(request, timeout=CALL_SECONDS_MAX),
            repeatable=True,
        ).tasks
        print()
        output.print_table(device_lines.HEADINGS, device_lines.rows(node, tasks))
    return EXIT_OK


def _used(reserved: str, total: str) -> str:
    return f"{reserved} of {total} reserved"


def cordon(options: argparse.Namespace) -> int:
    node = _set_availability(options, "cordon", objects_pb2.AVAILABILITY_CORDONED)
    return _changed(options, node, "gets no new tasks; 'fairway node activate' ends this")


def activate(options: argparse.Namespace) -> int:
    node = _set_availability(options, "activate", objects_pb2.AVAILABILITY_ACTIVE)
    return _changed(options, node, "takes tasks again")


def drain(options: argparse.Namespace) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    cluster = connect(options)
    node = _set_availability(options, "drain", objects_pb2.AVAILABILITY_DRAINING, cluster)
    as_json = options.output == "json"
    _changed(options, node, "is draining; each task is replaced before it stops")
    if options.detach:
        return EXIT_OK
    live = Live(sys.stderr if as_json else sys.stdout)
    try:
        _wait_until_empty(cluster, node, timeout_ms, live)
    except WaitedTooLong:
        waited = words.duration(timeout_ms)
        message = f"tasks are left after {waited}; it goes on: fairway ps --node {node.meta.name}"
        raise CommandFailed(f"drain {node.meta.name}", message, EXIT_TIMED_OUT) from None
    except KeyboardInterrupt:
        name = node.meta.name
        print(f"\nDetached. The drain goes on; 'fairway node activate {name}' ends it.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def _wait_until_empty(cluster: Cluster, node: objects_pb2.Node, timeout_ms: int, live: Live) -> None:
    started = time.monotonic()
    request = control_pb2.ListTasksRequest(node=node.meta.id)
    asked_at, why = started, dict[str, list[str]]()
    for reply in watch_tasks(cluster, f"drain {node.meta.name}", request, started + timeout_ms / 1000, REASONS_SECONDS):
        progress = drain_progress(reply, node, why)
        if not progress.done and time.monotonic() - asked_at >= REASONS_SECONDS:
            why = _pending_reasons(cluster, {(task.app, task.service) for task in reply.tasks})
            asked_at = time.monotonic()
            progress = drain_progress(reply, node, why)
        live.show(progress)
        if progress.done:
            print(f"Drained {node.meta.name} in {time.monotonic() - started:.1f}s.", file=live.stream)
            return


def _pending_reasons(cluster: Cluster, services: set[tuple[str, str]]) -> dict[str, list[str]]:
    """By APP/SERVICE; nothing where the cluster does not answer now: the watch goes on and asks again."""
    found: dict[str, list[str]] = {}
    for app in sorted({app for app, _ in services}):
        request = control_pb2.ListServicesRequest(app=app)
        try:
            views = cluster.call(
                f"list services of {app}",
                lambda control: control.ListServices(request, timeout=CALL_SECONDS_MAX),  # noqa: B023
            ).services
        except CommandFailed:
            continue
        for view in views:
            if (app, view.service.meta.name) in services:
                found[f"{app}/{view.service.meta.name}"] = list(view.pending_reasons)
    return found


def rm(options: argparse.Namespace) -> int:
    request = control_pb2.RemoveNodeRequest(node=options.node, force=options.force)
    reply = connect(options).call(
        f"remove node {options.node}",
        lambda control: control.RemoveNode(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        print(reply.message or f"Removed {options.node}.")
    return EXIT_OK


def label(options: argparse.Namespace) -> int:
    request = control_pb2.UpdateNodeRequest(node=options.node)
    for text in options.labels:
        name, equals, value = text.partition("=")
        if equals and name:
            request.set_labels[name] = value
        elif text.endswith("-") and len(text) > 1:
            request.remove_labels.append(text[:-1])
        else:
            raise CommandFailed("node label", f"{text!r} is neither NAME=VALUE nor NAME- (to remove it)", EXIT_USAGE)
    reply = connect(options).call(
        f"label node {options.node}",
        lambda control: control.UpdateNode(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    labels = ", ".join(f"{key}={value}" for key, value in sorted(reply.node.meta.labels.items()))
    return _changed(options, reply.node, f"has the labels {labels}" if labels else "has no labels")


def _set_availability(
    options: argparse.Namespace,
    verb: str,
    availability: objects_pb2.Availability.ValueType,
    cluster: Cluster | None = None,
) -> objects_pb2.Node:
    request = control_pb2.UpdateNodeRequest(node=options.node, availability=availability)
    return (
        (cluster or connect(options))
        .call(
            f"{verb} node {options.node}",
            lambda control: control.UpdateNode(request, timeout=CALL_SECONDS_MAX),
            repeatable=True,
        )
        .node
    )


def _changed(options: argparse.Namespace, node: objects_pb2.Node, words_: str) -> int:
    if options.output == "json":
        output.print_json(output.plain(node))
    else:
        print(f"{node.meta.name} {words_}.", flush=True)
    return EXIT_OK


def _list(cluster: Cluster, asked: str, node: str) -> list[control_pb2.NodeView]:
    request = control_pb2.ListNodesRequest(node=node)
    reply = cluster.call(asked, lambda control: control.ListNodes(request, timeout=CALL_SECONDS_MAX), repeatable=True)
    return list(reply.nodes)


def _one(cluster: Cluster, asked: str, node: str) -> control_pb2.NodeView:
    found = _list(cluster, asked, node)
    if len(found) != 1:
        raise CommandFailed(asked, "there is no such node; see: fairway node ls")
    return found[0]
