"""`events`: what happened, oldest first."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

from cli import output, words
from cli.connection import connect
from cli.failure import EXIT_OK
from cli.following import follow
from cli.moments import since_unix_ms
from proto import control_pb2, control_pb2_grpc, objects_pb2


def events(options: argparse.Namespace) -> int:
    request = control_pb2.ListEventsRequest(
        follow=options.follow,
        app=options.app,
        since_unix_ms=since_unix_ms(options.since, time.time_ns() // 1_000_000),
    )
    reached = 0  # revision that a new connection goes on from

    def invoke(control: control_pb2_grpc.ControlStub) -> Iterator[objects_pb2.Event]:
        return control.ListEvents(request)

    colour = output.colours(sys.stdout)
    overlap: set[bytes] = set()  # events of the newest revision and time, which a new connection repeats
    for event in follow(connect(options), "list events", invoke, again=options.follow):
        if event.revision < reached:
            continue
        key = event.SerializeToString(deterministic=True)
        if event.revision > reached:
            reached, request.since_unix_ms = event.revision, max(1, event.unix_ms)
            overlap.clear()
        elif key in overlap:
            continue
        overlap.add(key)
        if options.output == "json":
            print(json.dumps(output.plain(event)), flush=True)
        else:
            print(render(event, colour), flush=True)
    return EXIT_OK


def render(event: objects_pb2.Event, colour: bool) -> str:
    """ "2026-01-31T12:00:00.000+0000  task web.1 failed: exit status 3"."""
    what = " ".join(filter(None, (event.kind, event.subject or event.subject_id, event.action)))
    text = f"{words.timestamp(event.unix_ms)}  {what}" + (f": {event.message}" if event.message else "")
    return output.paint(text, "yellow", colour) if event.warning else text
