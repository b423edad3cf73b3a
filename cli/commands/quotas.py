"""`quota set`, `ls`, `show` and `rm`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cli import output, words
from cli.compose.values import cpu_millis, size_bytes
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2, objects_pb2

_COUNT_MAX = (1 << 32) - 1


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > _COUNT_MAX:
        raise ValueError(f"{text!r} is not a number")
    return int(text)


# Field of Quota -> its option, heading, reader and writer.
_FIELDS: dict[str, tuple[str, str, Callable[[str], int], Callable[[int], str]]] = {
    "tasks": ("tasks", "TASKS", _count, str),
    "cpu_reserved_millis": ("cpu", "CPU", cpu_millis, words.cores),
    "memory_reserved_bytes": ("memory", "MEMORY", size_bytes, words.size),
    "published_ports": ("ports", "PORTS", _count, str),
    "volumes": ("volumes", "VOLUMES", _count, str),
}


def change(options: argparse.Namespace) -> int:
    request = control_pb2.SetQuotaRequest(tenant=options.tenant)
    for name, (word, _, read, _) in _FIELDS.items():
        text = getattr(options, word)
        if text == "none":
            request.unbound.append(name)
        elif text:
            try:
                setattr(request.quota, name, read(text))
            except ValueError as error:
                raise CommandFailed("quota set", f"--{word}: {error}, nor `none`", EXIT_USAGE) from None
    if not request.unbound and not request.quota.ListFields():
        raise CommandFailed("quota set", "it says no bound; see: fairway quota set --help", EXIT_USAGE)
    reply = connect(options).call(
        f"set the quota of {options.tenant}",
        lambda control: control.SetQuota(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    return _print_one(options, reply.quota)


def ls(options: argparse.Namespace) -> int:
    views = list(_list(options, "list quotas", "").quotas)
    if options.quiet:
        print("".join(f"{view.tenant}\n" for view in views), end="")
    elif options.output == "json":
        output.print_items(views)
    else:
        headings = ["TENANT", *(heading for _, heading, _, _ in _FIELDS.values())]
        output.print_table(headings, [[view.tenant, *(_cell(view, name) for name in _FIELDS)] for view in views])
    return EXIT_OK


def show(options: argparse.Namespace) -> int:
    (view,) = _list(options, f"show the quota of {options.tenant}", options.tenant).quotas
    return _print_one(options, view)


def remove(options: argparse.Namespace) -> int:
    request = control_pb2.RemoveQuotaRequest(tenant=options.tenant)
    reply = connect(options).call(
        f"remove the quota of {options.tenant}",
        lambda control: control.RemoveQuota(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply.quota))
    else:
        print(f"Tenant {options.tenant} has no quota any more.")
    return EXIT_OK


def _list(options: argparse.Namespace, asked: str, tenant: str) -> control_pb2.ListQuotasReply:
    request = control_pb2.ListQuotasRequest(tenant=tenant)
    return connect(options).call(
        asked, lambda control: control.ListQuotas(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )


def _print_one(options: argparse.Namespace, view: control_pb2.QuotaView) -> int:
    if options.output == "json":
        output.print_json(output.plain(view))
        return EXIT_OK
    rows = []
    for name, (_, heading, _, text) in _FIELDS.items():
        over = _over(view, name)
        rows.append(
            [heading, text(getattr(view.used, name)), _bound(view.quota, name), "more than allowed" if over else ""]
        )
    print(f"Tenant {view.tenant}")
    output.print_table(["", "USED", "ALLOWED", ""], rows)
    return EXIT_OK


def _cell(view: control_pb2.QuotaView, name: str) -> str:
    """ "3/10"; "3" where there is no bound."""
    used = _FIELDS[name][3](getattr(view.used, name))
    return f"{used}/{_bound(view.quota, name)}" if _has(view.quota, name) else used


def _bound(quota: objects_pb2.Quota, name: str) -> str:
    return _FIELDS[name][3](getattr(quota, name)) if _has(quota, name) else "-"


def _over(view: control_pb2.QuotaView, name: str) -> bool:
    return _has(view.quota, name) and getattr(view.used, name) > getattr(view.quota, name)


def _has(quota: objects_pb2.Quota, name: str) -> bool:
    return any(field.name == name for field, _ in quota.ListFields())
