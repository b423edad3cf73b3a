"""The names that a shell offers: what the scripts of `completion` ask for. Never a word about what fails."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from cli.command import Command
from cli.connection import Cluster, connect
from cli.failure import EXIT_OK, CommandFailed
from proto import control_pb2, control_pb2_grpc

WORD = "__complete"  # fairway [--context NAME | --socket PATH] __complete KINDS
KINDS = {"TASK": "TASK", "SERVICE": "SERVICE", "APP": "APP", "NODE": "NODE", "IMAGE": "IMAGE", "JOB": "SERVICE"}
CALL_SECONDS_MAX = 3.0


def kinds_of(command: Command) -> str:
    """What its arguments name, "TASK|SERVICE"; "" where it is nothing that the cluster knows."""
    if command.path == "cp":
        return "TASK"
    words = [
        word
        for option in command.options
        if not option.names[0].startswith("-")
        for word in str(option.settings.get("metavar", "")).split("|")
    ]
    return "|".join(dict.fromkeys(KINDS[word] for word in words if word in KINDS))


def complete(arguments: Sequence[str]) -> int:
    """Prints a name a line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--context")
    parser.add_argument("--socket")
    parser.add_argument("kinds")
    options = parser.parse_args([each for each in arguments if each != WORD])
    try:
        names = sorted(set(_names(connect(options), options.kinds.split("|"))))
    except CommandFailed:
        return EXIT_OK
    print("\n".join(names))
    return EXIT_OK


def _names(cluster: Cluster, kinds: Sequence[str]) -> Iterable[str]:
    if {"TASK", "SERVICE", "APP"} & set(kinds):
        yield from _of_tasks(_listing(cluster), kinds)
    if "NODE" in kinds:

        def list_nodes(control: control_pb2_grpc.ControlStub) -> control_pb2.ListNodesReply:
            return control.ListNodes(control_pb2.ListNodesRequest(), timeout=CALL_SECONDS_MAX)

        yield from (view.node.meta.name for view in cluster.call("nodes", list_nodes, repeatable=True).nodes)
    if "IMAGE" in kinds:

        def list_images(control: control_pb2_grpc.ControlStub) -> control_pb2.ListImagesReply:
            return control.ListImages(control_pb2.ListImagesRequest(), timeout=CALL_SECONDS_MAX)

        images = cluster.call("images", list_images, repeatable=True).images
        yield from (image.meta.name.removeprefix("docker.io/library/") for image in images)


def _listing(cluster: Cluster) -> control_pb2.ListTasksReply:
    return cluster.call(
        "tasks",
        lambda control: control.ListTasks(control_pb2.ListTasksRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )


def _of_tasks(listing: control_pb2.ListTasksReply, kinds: Sequence[str]) -> Iterable[str]:
    """APP/NAME, and NAME alone where no other app has one."""
    named = [(each.app, each.meta.name) for each in listing.services if "SERVICE" in kinds]
    named += [(each.app, each.meta.name) for each in listing.tasks if "TASK" in kinds]
    apps: dict[str, set[str]] = {}
    for app, name in named:
        apps.setdefault(name, set()).add(app)
        yield f"{app}/{name}"
    yield from (name for name, having in apps.items() if len(having) == 1)
    if "APP" in kinds:
        yield from (each.app for each in listing.services)
