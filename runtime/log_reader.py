"""Where in a task's log files to begin, and what comes next. Blocking; called in threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proto.host_pb2 import LogLine
from runtime import log_archive, log_files, log_format
from runtime.log_choice import LogChoice

BATCH_BYTES_MAX = 256 * 1024


@dataclass(frozen=True)
class Position:
    number: int  # of the file
    offset_bytes: int


def beginning(folder: Path, choice: LogChoice) -> Position:
    """Before the last records that are asked for, and after files that ended before."""
    present = log_files.numbers(folder)
    if choice.tail_lines > 0 and not choice.counts_all:
        return _before_last_chosen(folder, present, choice)
    if choice.tail_lines >= 0:
        return _before_last(folder, present, choice.tail_lines)
    for number in present:
        try:
            changed_ms = log_files.changed_unix_ms(folder, number)
        except OSError:
            continue
        if changed_ms >= choice.since_unix_ms:
            return Position(number, 0)
    return Position(present[-1], 0) if present else Position(0, 0)


def read_batch(folder: Path, position: Position) -> tuple[list[LogLine], Position]:
    """The next whole records and the position after them; an unmoved position: there is no more yet."""
    records, after = _next_records(folder, position)
    parsed = (log_format.parse(record) for record in records)
    return [line for line in parsed if line is not None], after


def texts_after(folder: Path, position: Position, stream: str) -> Iterator[tuple[bytes, bool]]:
    """What the log has of a stream from there on: each record's text, and whether its line goes on in the next."""
    while True:
        records, after = _next_records(folder, position)
        for record in records:
            tag, _, text = record[log_format.STAMP_LENGTH + 1 :].partition(b" ")
            if tag.rstrip(b"+") == stream.encode():
                yield text, tag.endswith(b"+")
        if after == position:
            return
        position = after


def _next_records(folder: Path, position: Position) -> tuple[list[bytes], Position]:
    present = log_files.numbers(folder)  # listed before reading: a file with a successor is complete
    if position.number not in present:
        later = [number for number in present if number > position.number]
        if not later:
            return [], position
        position = Position(later[0], 0)
    try:
        data = _data_at(folder, position)
    except FileNotFoundError:
        return [], Position(position.number + 1, 0)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) < log_files.RECORD_BYTES_MAX:
        later = [number for number in present if number > position.number]
        return [], Position(later[0], 0) if later else position
    end = end or len(data)  # no record is that long: foreign bytes, passed over
    return data[:end].split(b"\n"), Position(position.number, position.offset_bytes + end)


def _data_at(folder: Path, position: Position) -> bytes:
    try:
        with log_files.path_of(folder, position.number).open("rb") as file:
            file.seek(position.offset_bytes)
            return file.read(BATCH_BYTES_MAX)
    except FileNotFoundError:  # it may be compressed
        with log_files.archive_of(folder, position.number).open("rb") as file:
            return log_archive.read_from(file, position.offset_bytes)


def _backwards(folder: Path, number: int) -> Iterator[tuple[int, bytes]]:
    """(offset, data) of the blocks of a file, the last one first."""
    try:
        with log_files.path_of(folder, number).open("rb") as file:
            offset = file.seek(0, 2)
            while offset > 0:
                start = max(0, offset - BATCH_BYTES_MAX)
                file.seek(start)
                yield start, file.read(offset - start)
                offset = start
    except FileNotFoundError:
        with log_files.archive_of(folder, number).open("rb") as file:
            for member in reversed(list(log_archive.members(file))):
                yield member.plain_offset_bytes, log_archive.content(file, member)


def _before_last(folder: Path, present: list[int], lines: int) -> Position:
    """Reads backwards, block by block, until `lines` line ends were seen."""
    if not present:
        return Position(0, 0)
    wanted = lines + 1  # the end of the record before counts too
    for number in reversed(present):
        try:
            for start, data in _backwards(folder, number):
                count = data.count(b"\n")
                if count >= wanted:
                    place = len(data)
                    for _ in range(wanted):
                        place = data.rfind(b"\n", 0, place)
                    return Position(number, start + place + 1)
                wanted -= count
        except FileNotFoundError:
            break
    return Position(present[0], 0)


def _before_last_chosen(folder: Path, present: list[int], choice: LogChoice) -> Position:
    """The same for some records only: each has to be looked at."""
    wanted = choice.tail_lines
    for number in reversed(present):
        begun = b""  # the end of a record whose beginning is in the block before
        try:
            for start, block in _backwards(folder, number):
                data = block + begun
                whole = data.find(b"\n") + 1 if start > 0 else 0
                if start > 0 and whole == 0:
                    begun = data
                    continue
                begun = data[:whole]
                end = data.rfind(b"\n", whole)
                while end >= whole:
                    first = max(data.rfind(b"\n", whole, end) + 1, whole)
                    wanted -= choice.has_record(data[first:end])
                    if wanted == 0:
                        return Position(number, start + first)
                    end = first - 1
        except FileNotFoundError:
            break
    return Position(present[0], 0) if present else Position(0, 0)
