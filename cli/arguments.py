"""The argument parser, built from the catalogue."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cli import catalogue
from cli.command import Command
from cli.failure import EXIT_CODES_HELP, EXIT_USAGE

_CONNECTION_HELP = """where to connect (the first that is given):
  --socket PATH, --context NAME, $FAIRWAY_SOCKET, $FAIRWAY_CONTEXT, the current context
  ('fairway context use'), the daemon of this host (/run/fairway/fairwayd.sock).
  Contexts are kept in ~/.config/fairway, or in $FAIRWAY_CONFIG."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"fairway: {message}\nSee '{self.prog} --help'.", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.metavar == "COMMAND" and action.choices is not None and value not in action.choices:
            import difflib  # only now: help is asked for more often

            near = difflib.get_close_matches(value, [*action.choices], n=3, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            self.error(f"there is no command {value!r}{hint}")
        super()._check_value(action, value)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command; `run` names the function. Exits with status 2 on wrong usage and with 0
    after --help."""
    parser = build(set(arguments))
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        options.parser.print_help(sys.stderr)
        sys.exit(EXIT_USAGE)
    return options


def build(words: set[str]) -> argparse.ArgumentParser:
    """For a command line of these words: commands whose first word is not among them are known by name only, which
    takes a third of the time."""
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="fairway",
        usage="fairway [--context NAME | --socket PATH] COMMAND ...",
        description="Runs containers on a cluster of hosts.",
        epilog=_overview(),
        formatter_class=raw,
        allow_abbrev=False,
    )
    _add_connection(parser, None)
    parser.set_defaults(parser=parser)
    children = parser.add_subparsers(prog="fairway", metavar="COMMAND", help=argparse.SUPPRESS)
    families: dict[str, Any] = {"": children}
    for command in catalogue.COMMANDS:
        first = command.path.partition(" ")[0]
        if first in words:
            family, _, word = command.path.rpartition(" ")
            _add_command(_family(families, family), word, command, raw)
        elif first not in children.choices:
            children.add_parser(first, add_help=False)
    return parser


def _family(families: dict[str, Any], family: str) -> Any:
    """What the commands of a family are added to; "net encryption" is one within "net"."""
    if family not in families:
        around, _, word = family.rpartition(" ")
        described = _sentence(catalogue.FAMILIES[family])
        group = _family(families, around).add_parser(
            word, description=described, help=catalogue.FAMILIES[family], allow_abbrev=False
        )
        group.set_defaults(parser=group)
        families[family] = group.add_subparsers(metavar="COMMAND", title="commands")
    return families[family]


def _add_command(children: Any, word: str, command: Command, raw: Any) -> None:
    examples = "\n".join(f"  {line}" for line in command.examples)
    parser = children.add_parser(
        word,
        help=command.help,
        description=command.help,
        epilog=f"examples:\n{examples}",
        formatter_class=raw,
        allow_abbrev=False,
    )
    for option in command.options:
        parser.add_argument(*option.names, **option.settings)
    _add_connection(parser, argparse.SUPPRESS)
    parser.set_defaults(run=command.run, parser=parser)


def _add_connection(parser: argparse.ArgumentParser, default: Any) -> None:
    # Not given below the command, they keep what was given before it: hence SUPPRESS there.
    group = parser.add_argument_group("connection")
    group.add_argument("--context", metavar="NAME", default=default, help="a context: fairway context ls")
    group.add_argument("--socket", metavar="PATH", default=default, help="Unix socket of a fairwayd")


def _overview() -> str:
    parts = []
    for group, title in catalogue.GROUPS.items():
        parts.append(f"{title}:")
        family_seen = set()
        for command in catalogue.COMMANDS:
            if command.group != group:
                continue
            family, _, below = command.path.partition(" ")
            if below and family not in family_seen:
                family_seen.add(family)
                words = "|".join(
                    each.path.removeprefix(f"{family} ")
                    for each in catalogue.COMMANDS
                    if each.path.startswith(f"{family} ")
                )
                parts.append(f"  {family:<11} {_sentence(catalogue.FAMILIES[family])} ({words})")
            elif not below:
                parts.append(f"  {command.path:<11} {command.help}")
        parts.append("")
    return "\n".join([*parts, _CONNECTION_HELP, "", EXIT_CODES_HELP]).replace("%", "%%")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
