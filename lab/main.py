"""`fairway lab`: a whole cluster on one machine, to try things on and to break."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab import commands
from lab.layout import DEFAULT_NAME, HOST_COUNT_MAX, LabError

_EXEC_USAGE = "fairway lab exec [--name LAB] HOST|CLIENT -- COMMAND..."


def _name_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=os.environ.get("FAIRWAY_LAB", DEFAULT_NAME), help="which lab")


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    parser = argparse.ArgumentParser(
        prog="fairway lab", description="A cluster on this machine, each host a set of namespaces."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        if name != "ls":
            _name_option(made)
        made.set_defaults(action=action)
        return made

    up = verb("up", "make a lab and a cluster on it", commands.up)
    up.add_argument("--hosts", type=int, default=3, metavar="N", help=f"1 to {HOST_COUNT_MAX}; default 3")
    up.add_argument("--state-folder", type=Path, metavar="FOLDER", help="what the hosts' disks hold; not on overlayfs")
    up.add_argument("--cpu-millis", type=int, default=4000, help="that each host says it has")
    up.add_argument("--memory-mib", type=int, default=4096, help="that each host says it has")
    up.add_argument("--build", type=Path, metavar="FOLDER", help="source tree that the hosts' fairwayd runs from")
    up.add_argument(
        "--underlay", choices=("ipv4", "ipv6"), default="ipv4", help="what hosts reach each other by; default ipv4"
    )
    up.add_argument("--keep", action="store_true", help="leave what was made when something fails")
    verb("ls", "list the labs of this machine", commands.ls)
    verb("status", "show hosts, daemons, clients and partitions", commands.status)
    run = verb("exec", f"run a command on a host or client: {_EXEC_USAGE}", commands.execute)
    run.add_argument("target", metavar="HOST|CLIENT")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    verb(
        "env",
        'print the shell line that points `fairway` at the lab: eval "$(fairway lab env)"',
        commands.env,
    )
    logs = verb("logs", "show a host's daemon logs", commands.logs)
    logs.add_argument("host")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-n", "--lines", type=int, default=100)
    logs.add_argument("--program", choices=("fairwayd", "containerd", "all"), default="all")
    for name, text, action in (
        ("kill", "power cut: everything on the host ends at once", commands.kill),
        ("start", "power for a host that is off", commands.start),
        ("restart-daemon", "kill -9 of fairwayd alone; it is started again", commands.restart_daemon),
    ):
        verb(name, text, action).add_argument("hosts", nargs="+", metavar="HOST")
    upgrade = verb("upgrade", "restart fairwayd from another source tree", commands.upgrade)
    upgrade.add_argument("hosts", nargs="+", metavar="HOST")
    upgrade.add_argument("--build", type=Path, metavar="FOLDER", help="default: this source tree")
    partition = verb("partition", "cut these hosts from all others", commands.partition)
    partition.add_argument("hosts", nargs="+", metavar="HOST")
    verb("heal", "make the network whole again", commands.heal)
    client = verb("client", "a further namespace on the underlay, for load", commands.client)
    client.add_argument("client", nargs="?", default="client", metavar="CLIENT")
    client.add_argument("--via", action="append", default=[], metavar="HOST", help="default: all hosts")
    down = verb("down", "remove everything of a lab", commands.down)
    down.add_argument("--all", action="store_true", help="all labs of this machine")
    return parser


def main(argv: list[str]) -> int:
    """Runs `fairway lab ARGV`; the result is the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        action: Callable[[argparse.Namespace], int] = arguments.action
        return action(arguments)
    except LabError as error:
        print(f"fairway lab {arguments.verb}: {error}", file=sys.stderr)
    except PermissionError as error:
        print(f"fairway lab {arguments.verb}: {error}; a lab needs root: use sudo", file=sys.stderr)
    except subprocess.TimeoutExpired as error:
        print(f"fairway lab {arguments.verb}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
