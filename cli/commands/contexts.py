"""`context ls`, `use`, `rm`, `export` and `import`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from cli import contexts
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed


def _known() -> contexts.Contexts:
    return contexts.read(contexts.folder_of(os.environ))


def ls(options: argparse.Namespace) -> int:
    from cli import output  # protobuf is not needed by the other commands here

    known = _known()
    ordered = [known.known[name] for name in sorted(known.known)]
    if options.quiet:
        print("".join(f"{context.name}\n" for context in ordered), end="")
    elif options.output == "json":
        output.print_json([{**dataclasses.asdict(each), "current": each.name == known.current} for each in ordered])
    else:
        rows = [("*" if each.name == known.current else "", each.name, ",".join(each.addresses)) for each in ordered]
        output.print_table(("CURRENT", "CONTEXT", "ADDRESSES"), rows)
    return EXIT_OK


def use(options: argparse.Namespace) -> int:
    if bool(options.name) == options.none:
        raise CommandFailed("context use", "give the name of a context, or --none", EXIT_USAGE)
    contexts.use(_known(), options.name)
    print(f"Commands now go to {options.name}." if options.name else "Commands now go to this host's daemon.")
    return EXIT_OK


def rm(options: argparse.Namespace) -> int:
    contexts.remove(_known(), options.name)
    print(f"Removed the context {options.name}.")
    return EXIT_OK


def export(options: argparse.Namespace) -> int:
    print(contexts.export(_known(), options.name), end="")
    return EXIT_OK


def load(options: argparse.Namespace) -> int:
    try:
        if options.file == "-":
            text = sys.stdin.read(contexts.FILE_BYTES_MAX)
        else:
            with Path(options.file).open() as file:
                text = file.read(contexts.FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"read {options.file}", str(error)) from error
    print(f"Stored the context {contexts.load_export(_known(), text, options.name)}.")
    return EXIT_OK
