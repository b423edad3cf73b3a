"""`fairway`: finds the command and runs it; every failure ends as a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from cli.failure import EXIT_INTERRUPTED, EXIT_OK, CommandFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code that `failure.EXIT_CODES_HELP` lists."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except CommandFailed as failure:
        _flush()
        print(f"fairway: {failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        _flush()
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not complain at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    return code


def _run(given: list[str]) -> int:
    if given[:1] == ["lab"]:
        from cli.commands import about

        return about.lab_main(given[1:])
    if "__complete" in given[:5]:
        os.environ["GRPC_VERBOSITY"] = "NONE"
        from cli.commands import complete

        return complete.complete(given)
    # gRPC's C core writes lines of its own to stderr when a connection ends; failures are said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from cli import arguments

    options = arguments.parse(given)
    module, _, function = str(options.run).partition(":")
    code = getattr(importlib.import_module(module), function)(options)
    assert isinstance(code, int)
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
