"""How a command is described, and the options that many commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """An argument as argparse takes it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """`path` is what people type, "node ls"; `run` is "module:function", imported only when it is used."""

    path: str
    run: str
    help: str
    examples: tuple[str, ...]
    options: tuple[Option, ...] = ()
    group: str = "look"


def option(*names: str, **settings: Any) -> Option:
    return Option(names, settings)


def flag(*names: str, help: str) -> Option:
    return Option(names, {"action": "store_true", "help": help})


def repeated(name: str, metavar: str, help: str) -> Option:
    return Option((name,), {"action": "append", "default": [], "metavar": metavar, "help": help})


OUTPUT = option("-o", "--output", choices=["table", "json"], default="table", help="table or json")
WIDE = option("-o", "--output", choices=["table", "wide", "json"], default="table", help="table, wide or json")
QUIET = flag("-q", "--quiet", help="print names or ids only")
DETACH = flag("-d", "--detach", help="do not wait until it is done")
TIMEOUT = option("--timeout", metavar="DURATION", default="10m", help="stop waiting after this long (default 10m)")
LABEL = repeated("--label", "NAME=VALUE", "a label of this host; may be repeated")
NAME = option("--name", metavar="APP", default="", help="name of the app, instead of the file's own")
# What says which app is meant, by its files: see cli/compose_files.py.
COMPOSE = (
    option(
        "file",
        metavar="FILE",
        nargs="*",
        help="a Compose file, or - for standard input; a later one is merged over the earlier ones",
    ),
    option("-f", "--file", dest="files", metavar="FILE", action="append", default=[], help="the same, as in Compose"),
    repeated("--profile", "PROFILE", "also the services of this profile; may be repeated"),
    repeated("--env-file", "FILE", "variables from here instead of .env; may be repeated"),
    NAME,
)
NODE = option("node", metavar="NODE", help="name or id of a node")
SINCE = option("--since", metavar="WHEN", default="", help='not older than this: "10m" or "2026-01-31T12:00:00"')
