"""`inspect`: the whole of stored objects."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from cli import output
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK
from proto import control_pb2


def inspect(options: argparse.Namespace) -> int:
    request = control_pb2.InspectRequest(kind=options.kind, name=options.name)
    asked = f"inspect {options.kind} {options.name}".rstrip()
    reply = connect(options).call(
        asked, lambda control: control.Inspect(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )
    found = [output.plain(each) for field, _ in reply.ListFields() for each in getattr(reply, field.name)]
    if options.output == "json":
        output.print_json(found)
        return EXIT_OK
    print("\n\n".join("\n".join(lines(each)) for each in found))
    return EXIT_OK


def lines(value: Any, indent: str = "") -> Iterator[str]:
    """What is set of a JSON value, one name or element a line, what is within indented."""
    pairs = value.items() if isinstance(value, dict) else (("-", each) for each in value)
    for name, each in pairs:
        label = f"{indent}{name}" if name == "-" else f"{indent}{name}:"
        if isinstance(each, dict | list):
            within = list(lines(each, indent + "  "))
            if within:
                yield label
                yield from within
        elif each or name == "-":
            yield f"{label} {each}"
