"""Records, rotation, tail and since: what is written to a task's log is what is read from it."""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import log_archive, log_files, log_format, log_intake, log_reader
from runtime.log_choice import LogChoice
from runtime.log_files import LogFiles
from runtime.log_format import LINE_BYTES_MAX, LineSplitter
from runtime.log_intake import Intake, path_of
from runtime.log_reader import Position

SECOND_NS = 1_000_000_000
START_NS = 1_795_000_000 * SECOND_NS + 123_456_789


def records(count: int, first: int = 0) -> bytes:
    """One a second: line 0, line 1, ..."""
    splitter = LineSplitter("out")
    return b"".join(
        splitter.feed(b"line %d\n" % number, START_NS + number * SECOND_NS) for number in range(first, first + count)
    )


def read(folder: Path, tail_lines: int = -1, since_unix_ms: int = 0) -> list[bytes]:
    choice = LogChoice(tail_lines, since_unix_ms)
    position = log_reader.beginning(folder, choice)
    texts: list[bytes] = []
    while True:
        lines, after = log_reader.read_batch(folder, position)
        texts += [line.text for line in lines if choice.has(line)]
        if after == position:
            return texts
        position = after


def names(first: int, end: int) -> list[bytes]:
    return [b"line %d" % number for number in range(first, end)]


@given(st.lists(st.binary(max_size=60)), st.sampled_from(["out", "err"]), st.integers(1, 2**62))
def test_lines_come_back_byte_for_byte_however_they_are_cut(pieces: list[bytes], stream: str, unix_ns: int) -> None:
    unix_ns %= 250_000_000_000 * SECOND_NS // 1000  # years of four digits
    splitter = LineSplitter(stream)
    written = b"".join(splitter.feed(piece, unix_ns) for piece in pieces) + splitter.finish(unix_ns)
    lines = [log_format.parse(record) for record in written.split(b"\n")[:-1]]
    expected = b"".join(pieces).split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.text for line in lines if line is not None] == expected
    for line in lines:
        assert line is not None
        assert (line.unix_ns, line.standard_error) == (unix_ns, stream == "err")


def test_a_long_line_goes_on_in_further_records() -> None:
    splitter = LineSplitter("out")
    text = bytes(range(11, 256)) * 200  # has no line end
    written = splitter.feed(text + b"\nnext", START_NS)
    assert splitter.unfinished == b"next"
    assert written.count(b"Z out+ ") == len(text) // LINE_BYTES_MAX
    parsed = [log_format.parse(record) for record in written.split(b"\n")[:-1]]
    assert b"".join(line.text for line in parsed if line is not None) == text
    endless = LineSplitter("err")
    for _ in range(100):
        endless.feed(b"x" * 1000, START_NS)
        assert len(endless.unfinished) <= LINE_BYTES_MAX


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"2026-11-21T21:51:19.123456789Z",
        b"2026-11-21T21:51:19.123456789Z other text",
        b"2026-11-21T21:51:19.12345678xZ out text",
        b"2026-13-21T21:51:19.123456789Z out text",
        b"1.123456789Z out text",
        b"\0" * 50,
    ],
)
def test_what_is_no_record_is_passed_over(record: bytes) -> None:
    assert log_format.parse(record) is None


def test_rotation_keeps_the_newest_and_bounds_the_whole(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, size_bytes_max=400, files_max=3)
    for number in range(100):
        files.append(records(1, number))
    files.close()
    present = log_files.numbers(tmp_path)
    assert len(present) == 3
    assert present[-1] > 3
    assert all(log_files.path_of(tmp_path, number).stat().st_size <= 400 for number in present)
    texts = read(tmp_path)
    assert texts == names(100 - len(texts), 100)


def test_a_file_is_left_for_the_next_by_age_also_over_a_restart(tmp_path: Path) -> None:
    for number, stamped_s_ago in enumerate([0, 0, 100, 0]):
        files = LogFiles(tmp_path, 10_000, files_max=9, age_s_max=60)
        files.append(LineSplitter("out").feed(b"line %d\n" % number, time.time_ns() - stamped_s_ago * SECOND_NS))
        files.append(LineSplitter("out").feed(b"line\n", time.time_ns()))
        files.close()
        if number == 1:  # as if it had been begun long ago
            path = log_files.path_of(tmp_path, 1)
            path.write_bytes(path.read_bytes().replace(b"20", b"19", 1))
    assert log_files.numbers(tmp_path) == [1, 2, 3]


def test_a_reader_that_rotation_overtook_goes_on_with_the_oldest_file(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, size_bytes_max=400, files_max=2)
    files.append(records(3))
    _, position = log_reader.read_batch(tmp_path, Position(1, 0))
    for number in range(3, 60):
        files.append(records(1, number))
    lines, position = log_reader.read_batch(tmp_path, position)
    assert position.number == log_files.numbers(tmp_path)[0]
    assert lines[0].text in names(30, 60)
    files.close()


@pytest.mark.parametrize("size_bytes_max", [150, 1_000, 1_000_000])
@pytest.mark.parametrize("tail", [0, 1, 2, 7, 40, 100])
def test_tail_counts_back_over_files(tmp_path: Path, size_bytes_max: int, tail: int) -> None:
    files = LogFiles(tmp_path, size_bytes_max, files_max=1000)
    for number in range(40):
        files.append(records(1, number))
    files.close()
    assert read(tmp_path, tail) == names(max(0, 40 - tail), 40)


def test_tail_over_more_than_one_block(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 100_000_000, 3)
    count = 3 * log_reader.BATCH_BYTES_MAX // 40
    files.append(records(count))
    files.close()
    assert read(tmp_path, count - 5) == names(5, count)


def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 300, 100)
    files.append(records(10))
    files.append(records(10, 10))
    files.close()
    since_ms = (START_NS + 12 * SECOND_NS) // 1_000_000
    assert read(tmp_path, since_unix_ms=since_ms) == names(12, 20)
    assert read(tmp_path, 3, since_ms) == names(17, 20)


def test_a_torn_record_harms_no_other(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 10_000, 3)
    files.append(records(2) + b"2026-11-21T21:51")
    files.close()
    assert read(tmp_path) == names(0, 2)
    files = LogFiles(tmp_path, 10_000, 3)
    files.append(records(2, 2))
    files.close()
    assert read(tmp_path) == names(0, 4)


def test_a_log_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
    assert read(tmp_path / "none", 5) == []


def pending(folder: Path, files: LogFiles, stream: str = "out") -> bytes:
    """What a new daemon finds of a stream."""
    intake = Intake(folder, stream)
    try:
        return intake.load(Position(*files.end))
    finally:
        intake.close()


def test_what_was_taken_is_found_again_until_it_is_in_the_log(tmp_path: Path) -> None:
    source, writer = os.pipe2(os.O_NONBLOCK)
    files = LogFiles(tmp_path, 10_000, 3)
    intake, splitter = Intake(tmp_path, "out"), LineSplitter("out")
    assert intake.load(Position(*files.end)) == b""
    os.write(writer, b"line 0\nline 1\nlin")
    assert intake.take(source, Position(*files.end)) == b"line 0\nline 1\nlin"
    with pytest.raises(BlockingIOError):
        intake.take(source, Position(*files.end))
    assert pending(tmp_path, files) == b"line 0\nline 1\nlin"
    assert pending(tmp_path, files, "err") == b""
    files.append(records(1))
    files.append(LineSplitter("err").feed(b"line 1\n", START_NS))
    assert pending(tmp_path, files) == b"line 1\nlin"
    assert pending(tmp_path, files) == b"line 1\nlin"
    intake = Intake(tmp_path, "out")
    files.append(splitter.feed(intake.load(Position(*files.end)), START_NS))
    intake.settle(splitter.unfinished, Position(*files.end))
    assert pending(tmp_path, files) == b"lin"
    os.close(writer)
    assert intake.take(source, Position(*files.end)) == b""
    files.append(splitter.finish(START_NS))
    intake.settle(b"", Position(*files.end))
    intake.close()
    assert not path_of(tmp_path, "out").exists()
    assert read(tmp_path) == [b"line 0", b"line 1", b"line 1", b"lin"]
    files.close()
    os.close(source)


@settings(deadline=None)
@given(st.data(), st.lists(st.sampled_from([b"a", b"aa", b"b", b"\n"]), max_size=60).map(b"".join))
def test_a_kill_at_any_byte_of_an_append_loses_and_doubles_nothing(data: st.DataObject, text: bytes) -> None:
    splitter = LineSplitter("out")
    appended = splitter.feed(text, START_NS)
    cut = data.draw(st.integers(0, len(appended)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_files.path_of(folder, 1).write_bytes(appended[:cut])
        files = LogFiles(folder, 10_000, 3)
        there = list(log_reader.texts_after(folder, Position(1, 0), "out"))
        again = LineSplitter("out")
        files.append(again.feed(log_intake.remaining(text, there), START_NS))
        files.append(again.finish(START_NS))
        files.close()
        assert read(folder) == text.split(b"\n")[: None if splitter.unfinished else -1]


def test_lines_that_were_left_out_stay_left_out() -> None:
    text = b"one\ntwo\nthree\nfour\nfi"
    assert log_intake.remaining(text, [(b"one", False), (b"three", False)]) == b"four\nfi"
    assert log_intake.remaining(b"x" * 20 + b"\ny", [(b"x" * 16, True), (b"xxxx", False)]) == b"y"


@pytest.mark.parametrize("rest", [b"", b"rest"])
def test_what_is_taken_is_kept_in_little_space(tmp_path: Path, rest: bytes) -> None:
    source, writer = os.pipe2(os.O_NONBLOCK)
    files = LogFiles(tmp_path, 10_000_000, 3)
    intake, splitter = Intake(tmp_path, "out"), LineSplitter("out")
    for _ in range(60):
        os.write(writer, (b"x" * 999 + b"\n") * 30 + rest)
        files.append(splitter.feed(intake.take(source, Position(*files.end)), START_NS))
        intake.settle(splitter.unfinished, Position(*files.end))
        assert path_of(tmp_path, "out").stat().st_size < log_intake.SHORTEN_BYTES + log_intake.TAKE_BYTES_MAX
    assert pending(tmp_path, files) == rest
    assert len(read(tmp_path)) == 60 * 30
    intake.close()
    files.close()
    os.close(writer)
    os.close(source)


@pytest.mark.parametrize("content", [b"", b"1 2", b"1 0 9\nshort", b"\xff" * 64])
def test_torn_pending_bytes_are_none(tmp_path: Path, content: bytes) -> None:
    path_of(tmp_path, "out").write_bytes(content)
    files = LogFiles(tmp_path, 10_000, 3)
    assert pending(tmp_path, files) == b""
    files.close()


@settings(deadline=None)  # they write files
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 2000), st.data())
def test_a_compressed_file_is_read_from_any_place_as_the_plain_one(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], tail_lines: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    files = LogFiles(folder, 4_000, 50)
    written = 0
    for size in sizes:
        files.append(records(size, written))
        written += size
    files.close()
    plain = [log_files.path_of(folder, number).read_bytes() for number in log_files.numbers(folder)]
    offset = data.draw(st.integers(0, len(plain[0])))
    before = log_reader.read_batch(folder, Position(1, offset))
    log_files.archive(folder, lambda: None)
    assert log_files.numbers(folder) == list(range(1, len(plain) + 1))
    for number, content in enumerate(plain[:-1], 1):
        assert not log_files.path_of(folder, number).exists()
        assert gzip.decompress(log_files.archive_of(folder, number).read_bytes()) == content
    assert log_reader.read_batch(folder, Position(1, offset)) == before
    assert read(folder) == names(0, written)
    assert read(folder, tail_lines) == names(max(0, written - tail_lines), written)


def test_members_of_a_compressed_file_end_with_records(tmp_path: Path) -> None:
    count = 3 * log_archive.MEMBER_BYTES_MAX // len(records(1, 10_000))
    files = LogFiles(tmp_path, 1 << 30, 3)
    files.append(records(count, 10_000))
    files.close()
    archived = tmp_path / "archive.gz"
    log_archive.compress(log_files.path_of(tmp_path, 1), archived)
    with archived.open("rb") as file:
        found = list(log_archive.members(file))
        contents = [log_archive.content(file, member) for member in found]
    assert len(found) > 3
    assert all(len(content) <= log_archive.MEMBER_BYTES_MAX and content.endswith(b"\n") for content in contents)
    assert b"".join(contents) == records(count, 10_000)
    assert archived.stat().st_mtime_ns == log_files.path_of(tmp_path, 1).stat().st_mtime_ns


def test_rotation_removes_compressed_files_too_and_what_is_asked_to_end_leaves_nothing(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 2_000, 3)
    for number in range(6):
        files.append(records(40, number * 40))
        log_files.archive(tmp_path, lambda: None)
    files.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000004.log.gz", "000005.log.gz", "000006.log"]

    def ends() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_archive.compress(log_files.path_of(tmp_path, 6), tmp_path / "other.gz", ends)
    assert len(list(tmp_path.iterdir())) == 3


@settings(deadline=None)  # they write files
@given(
    st.lists(st.tuples(st.sampled_from(["out", "err"]), st.integers(0, 40)), min_size=1, max_size=30),
    st.integers(0, 12),
    st.integers(0, 30),
    st.sampled_from(["", "stdout", "stderr"]),
    st.sampled_from([40, 100, log_reader.BATCH_BYTES_MAX]),
)
def test_the_last_lines_of_a_stream_before_a_moment_are_the_last_of_all_such(
    written: list[tuple[str, int]], tail_lines: int, until_s: int, stream: str, block_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_reader, "BATCH_BYTES_MAX", block_bytes)
        folder = Path(name)
        files = LogFiles(folder, 400, 100)
        for number, (tag, length) in enumerate(written):
            text = b"%d" % number + b"x" * length
            files.append(LineSplitter(tag).feed(text + b"\n", START_NS + number * SECOND_NS))
        files.close()
        until_ms = (START_NS + until_s * SECOND_NS) // 1_000_000
        position = log_reader.beginning(folder, LogChoice(tail_lines, 0, until_ms, stream))
        patch.undo()
        choice = LogChoice(tail_lines, 0, until_ms, stream)
        found = []
        while True:
            lines, after = log_reader.read_batch(folder, position)
            found += [int(line.text.rstrip(b"x")) for line in lines if choice.has(line)]
            if after == position:
                break
            position = after
        tags = {"": ("out", "err"), "stdout": ("out",), "stderr": ("err",)}[stream]
        chosen = [number for number, (tag, _) in enumerate(written) if tag in tags and number <= until_s]
        assert found == (chosen[-tail_lines:] if tail_lines else [])
