"""`version`, and the way to the lab."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence

from cli.failure import EXIT_OK, CommandFailed


def version(options: argparse.Namespace) -> int:
    found = importlib.metadata.version("fairway")
    if options.output == "json":
        from cli import output

        output.print_json({"version": found})
    else:
        print(f"fairway {found}")
    return EXIT_OK


def lab(options: argparse.Namespace) -> int:
    """`fairway --context X lab`: the lab has clusters of its own."""
    raise CommandFailed("lab", "the lab takes no --context or --socket; write: fairway lab ...")


def lab_main(arguments: Sequence[str]) -> int:
    if importlib.util.find_spec("lab.main") is None:
        raise CommandFailed("lab", "this installation has no lab; install the whole fairway package")
    code = importlib.import_module("lab.main").main(list(arguments))
    return int(code or 0)
