"""`logs`: what tasks wrote, each line to the stream it was written to."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator

from cli import output, words
from cli.connection import connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from cli.following import follow
from cli.moments import since_unix_ms
from proto import control_pb2, control_pb2_grpc, host_pb2

_COLOURS = ("cyan", "green", "yellow", "bold")


def logs(options: argparse.Namespace) -> int:
    request = control_pb2.LogsRequest(
        target=options.target,
        follow=options.follow,
        tail_lines=_tail(options.tail),
        since_unix_ms=since_unix_ms(options.since, time.time_ns() // 1_000_000),
    )
    newest: dict[str, int] = {}  # by task: time of the newest line, in nanoseconds
    printed: dict[str, int] = {}  # the same when the connection was made: what it repeats

    def invoke(control: control_pb2_grpc.ControlStub) -> Iterator[host_pb2.LogChunk]:
        if newest:
            printed.update(newest)
            request.since_unix_ms = min(newest.values()) // 1_000_000
            request.tail_lines = -1
        return control.Logs(request)

    colour = output.colours(sys.stdout)
    for chunk in follow(connect(options), f"logs of {options.target}", invoke, again=options.follow):
        for line in chunk.lines:
            if line.unix_ns > printed.get(chunk.task_id, -1):
                _print_line(options, chunk, line, colour)
        times = [line.unix_ns for line in chunk.lines]
        newest[chunk.task_id] = max([newest.get(chunk.task_id, 0), *times])
        sys.stdout.flush()
    return EXIT_OK


def _tail(text: str) -> int:
    if text == "all":
        return -1
    if not (text.isascii() and text.isdigit()) or int(text) > 1_000_000_000:
        raise CommandFailed("--tail", f"{text!r} is not a number of lines, or all", EXIT_USAGE)
    return int(text)


def _print_line(options: argparse.Namespace, chunk: host_pb2.LogChunk, line: host_pb2.LogLine, colour: bool) -> None:
    if options.output == "json":
        record = {
            "task_id": chunk.task_id,
            "task": chunk.task_name,
            "unix_ns": line.unix_ns,
            "stream": "stderr" if line.standard_error else "stdout",
            "text": line.text.decode(errors="replace"),
        }
        print(json.dumps(record))
        return
    before = ""
    if not _is_one_task(options.target, chunk):
        name = output.paint(chunk.task_name, _COLOURS[zlib.crc32(chunk.task_name.encode()) % 4], colour)
        before = f"{name} | "
    if options.timestamps:
        before += words.timestamp(line.unix_ns // 1_000_000) + " "
    stream = sys.stderr if line.standard_error else sys.stdout
    if line.standard_error:
        sys.stdout.flush()  # keeps the order where both go to one place
    stream.buffer.write(before.encode() + line.text + b"\n")
    stream.buffer.flush()


def _is_one_task(target: str, chunk: host_pb2.LogChunk) -> bool:
    name = target.rpartition("/")[2]
    return name == chunk.task_name.rpartition("/")[2] or (bool(name) and chunk.task_id.startswith(name))
