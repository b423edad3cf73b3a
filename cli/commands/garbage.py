"""`df` and `prune`: what is on the hosts' disks, and the end of what nobody needs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_FAILED, EXIT_OK
from proto import control_pb2, garbage_pb2

PRUNE_SECONDS_MAX = 330.0
NAMES = {
    "image": "Images",
    "unpacked": "Unpacked layers",
    "partial": "Parts of pulls",
    "upload": "Parts of loads",
    "log": "Logs",
    "volume": "Volumes",
}


def df(options: argparse.Namespace) -> int:
    request = control_pb2.ReadSpaceRequest(nodes=options.nodes, items=options.verbose)
    reply = connect(options).call(
        "read what is on the disks",
        lambda control: control.ReadSpace(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.output == "json":
        output.print_items(reply.hosts)
    else:
        for number, host in enumerate(reply.hosts):
            print("\n" if number else "", end="")
            print("\n".join(_disk_lines(host)))
            output.print_table(("KIND", "COUNT", "IN USE", "SIZE", "RECLAIMABLE"), list(_kind_rows(host.kinds)))
            if options.verbose:
                print()
                now = time.time_ns() // 1_000_000
                output.print_table(("KIND", "NAME", "SIZE", "UNUSED FOR", "KEPT BECAUSE"), item_rows(host.items, now))
    return _say_silent(reply.silent)


def _disk_lines(host: garbage_pb2.HostSpace) -> list[str]:
    lines = []
    for each in host.file_systems:
        free = max(0, each.size_bytes - each.used_bytes)
        held = ", ".join(each.holds)
        full = f", collected from {host.high_percent} %" if each.used_percent >= host.high_percent else ""
        lines.append(
            f"{host.node}: {each.path} ({held}): {words.size(each.used_bytes)} of {words.size(each.size_bytes)} "
            f"used ({each.used_percent} %{full}), {words.size(free)} free"
        )
    return lines


def _kind_rows(kinds: Iterable[garbage_pb2.SpaceKind]) -> Iterable[Sequence[str]]:
    for kind in kinds:
        if kind.count or kind.kind in ("image", "log", "volume"):
            yield (
                NAMES.get(kind.kind, kind.kind),
                str(kind.count),
                str(kind.needed_count),
                words.size(kind.size_bytes),
                words.size(kind.reclaimable_bytes),
            )


def item_rows(items: Iterable[garbage_pb2.SpaceItem], now_unix_ms: int) -> list[Sequence[str]]:
    """In the order in which they came: the largest first."""
    return [
        (
            item.kind,
            item.name,
            words.size(item.size_bytes),
            words.age(item.unused_unix_ms, now_unix_ms),
            item.needed_by,
        )
        for item in items
    ]


def prune(options: argparse.Namespace) -> int:
    request = control_pb2.CollectGarbageRequest(
        nodes=options.nodes, plan_only=options.dry_run, logs=options.logs, volumes=options.volumes
    )
    reply = connect(options).call("prune", lambda control: control.CollectGarbage(request, timeout=PRUNE_SECONDS_MAX))
    if options.output == "json":
        output.print_items(reply.hosts)
        failed = any(host.failures for host in reply.hosts)
        return _say_silent(reply.silent) or (EXIT_FAILED if failed else EXIT_OK)
    word = "would free" if options.dry_run else "freed"
    failed = False
    for host in reply.hosts:
        for item in host.removed:
            print(f"{host.node}: {word} {words.size(item.frees_bytes)}: {item.kind} {item.name}")
        for failure in host.failures:
            failed = True
            print(f"{host.node}: {failure}", file=sys.stderr)
    total = sum(host.freed_bytes for host in reply.hosts)
    print(f"{word.capitalize()} {words.size(total)} on {words.plural(len(reply.hosts), 'host')}")
    return _say_silent(reply.silent) or (EXIT_FAILED if failed else EXIT_OK)


def _say_silent(silent: Iterable[str]) -> int:
    code = EXIT_OK
    for each in silent:
        output.warn(each)
        code = EXIT_FAILED
    return code
