"""`logs`: what tasks wrote, each line to the stream it was written to."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator

from cli import log_fields, output, words
from cli.connection import connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from cli.following import follow
from cli.moments import since_unix_ms
from proto import control_pb2, control_pb2_grpc, host_pb2
from proto.log_place import LogPlace

_COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
ID_LENGTH_MIN = 4  # of the beginning of one


def logs(options: argparse.Namespace) -> int:
    now_unix_ms = time.time_ns() // 1_000_000
    request = control_pb2.LogsRequest(
        target=options.targets[0],
        targets=options.targets[1:],
        follow=options.follow,
        tail_lines=_tail(options.tail),
        since_unix_ms=since_unix_ms(options.since, now_unix_ms),
        until_unix_ms=since_unix_ms(options.until, now_unix_ms, "--until"),
        stream=_stream(options),
    )
    if 0 < request.until_unix_ms < request.since_unix_ms:
        raise CommandFailed("--until", "this is before --since", EXIT_USAGE)
    since = request.since_unix_ms
    places: dict[str, LogPlace] = {}  # by task

    def invoke(control: control_pb2_grpc.ControlStub) -> Iterator[host_pb2.LogChunk]:
        again = [found for place in places.values() if (found := place.begin_again()) is not None]
        if again:
            request.since_unix_ms, request.tail_lines = max(since, min(again)), -1
        return control.Logs(request)

    printer = _Printer(options)
    asked = f"logs of {' '.join(options.targets)}"
    for chunk in follow(connect(options), asked, invoke, again=options.follow):
        place = places.setdefault(chunk.task_id, LogPlace())
        for line in chunk.lines:
            if line.unix_ns == 0 or place.is_new(line):
                printer.print(chunk, line)
        sys.stdout.flush()
    return EXIT_OK


def _stream(options: argparse.Namespace) -> host_pb2.LogStream.ValueType:
    if options.stdout == options.stderr:
        return host_pb2.LOG_STREAM_BOTH
    return host_pb2.LOG_STREAM_STDOUT if options.stdout else host_pb2.LOG_STREAM_STDERR


def _tail(text: str) -> int:
    if text == "all":
        return -1
    if not (text.isascii() and text.isdigit()) or int(text) > 1_000_000_000:
        raise CommandFailed("--tail", f"{text!r} is not a number of lines, or all", EXIT_USAGE)
    return int(text)


class _Printer:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._colours = {stream: output.colours(stream) for stream in (sys.stdout, sys.stderr)}
        self._fields = [name for name in options.fields.split(",") if name]
        try:
            self._filters = [log_fields.parse_filter(text) for text in options.where]
        except ValueError as error:
            raise CommandFailed("--where", str(error), EXIT_USAGE) from None

    def print(self, chunk: host_pb2.LogChunk, line: host_pb2.LogLine) -> None:
        options, found = self._options, None
        if self._filters or self._fields or options.output == "json":
            found = log_fields.object_of(line.text)
        if line.unix_ns and not log_fields.matches(found, self._filters):
            return
        text = line.text
        if self._fields and found is not None:
            found = {name: log_fields.field(found, name.split(".")) for name in self._fields}
            text = " ".join(f"{name}={log_fields.text_of(value)}" for name, value in found.items()).encode()
        if options.output == "json":
            print(json.dumps(_record(chunk, line, found)))
            return
        stream = sys.stderr if line.standard_error else sys.stdout
        before = ""
        if not _is_one_task(options.targets, chunk):
            name = f"{chunk.app}/{chunk.task_name}" if len(options.targets) > 1 else chunk.task_name
            colour = _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
            before = f"{output.paint(name, colour, self._colours[stream])} | "
        if options.timestamps and line.unix_ns:
            before += words.timestamp(line.unix_ns // 1_000_000) + " "
        if line.standard_error:
            sys.stdout.flush()  # keeps the order where both go to one place
        stream.buffer.write(before.encode() + text + b"\n")
        if line.standard_error:
            stream.buffer.flush()


def _record(chunk: host_pb2.LogChunk, line: host_pb2.LogLine, found: dict[str, object] | None) -> dict[str, object]:
    record: dict[str, object] = {
        "task_id": chunk.task_id,
        "task": chunk.task_name,
        "app": chunk.app,
        "node": chunk.node,
        "unix_ns": line.unix_ns,
        "stream": "stderr" if line.standard_error else "stdout",
        "text": line.text.decode(errors="replace"),
    }
    return record if found is None else {**record, "fields": found}


def _is_one_task(targets: list[str], chunk: host_pb2.LogChunk) -> bool:
    name = targets[0].rpartition("/")[2]
    if len(targets) > 1:
        return False
    return name == chunk.task_name or (len(name) >= ID_LENGTH_MIN and chunk.task_id.startswith(name))
