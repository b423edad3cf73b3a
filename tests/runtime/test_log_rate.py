"""What a task may write a second; what is more is left out and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import log_format
from runtime.log_format import LineSplitter
from runtime.log_rate import BURST_S, NOTE_INTERVAL_S, LineRate

SECOND_NS = 1_000_000_000
START_NS = 1_795_000_000 * SECOND_NS


def texts(records: bytes) -> list[bytes]:
    lines = [log_format.parse(record) for record in records.split(b"\n")[:-1]]
    assert None not in lines
    return [line.text for line in lines if line is not None]


def lines(count: int, size: int = 4) -> bytes:
    return LineSplitter("out").feed((b"x" * size + b"\n") * count, START_NS)


def test_without_bounds_nothing_is_looked_at() -> None:
    assert LineRate(0, 0).admit(b"as it is", START_NS) == b"as it is"


@pytest.mark.parametrize(("rate", "size"), [(LineRate(10, 0), 4), (LineRate(0, 500), 45)])
def test_what_is_more_is_left_out_and_said(rate: LineRate, size: int) -> None:
    first = texts(rate.admit(lines(100, size), START_NS))
    assert first[:-1] == [b"x" * size] * 10 * BURST_S
    assert first[-1].startswith(b"fairway: 50 lines (")
    later = texts(rate.admit(lines(30, size), START_NS + SECOND_NS))
    assert later == [b"x" * size] * 10, "no note so soon"
    calm = texts(rate.admit(lines(10, size), START_NS + 2 * SECOND_NS))
    assert calm[:10] == [b"x" * size] * 10
    assert calm[10].startswith(b"fairway: 20 lines (")
    assert rate.finish(START_NS) == b""
    assert rate.left_out_lines == 70


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND_NS), st.integers(0, 60)), max_size=30), st.integers(1, 40))
def test_every_line_is_kept_or_counted_within_the_bound(bursts: list[tuple[int, int]], bound: int) -> None:
    rate, now_ns, kept, written, noted = LineRate(bound, 0), START_NS, 0, 0, 0
    for wait_ns, count in bursts:
        now_ns += wait_ns
        for text in texts(rate.admit(lines(count), now_ns)):
            kept += not text.startswith(b"fairway: ")
            noted += int(text.split()[1]) if text.startswith(b"fairway: ") else 0
        written += count
        assert kept <= bound * (BURST_S + (now_ns - START_NS) / SECOND_NS) + 1
    noted += sum(int(text.split()[1]) for text in texts(rate.finish(now_ns)))
    assert kept + noted == written
    assert rate.left_out_lines == noted
    assert NOTE_INTERVAL_S > 1
