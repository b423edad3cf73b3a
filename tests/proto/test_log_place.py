"""A log that is read again after a reconnection shows each line once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proto.host_pb2 import LogLine
from proto.log_place import STREAMS_APART_MS_MAX, LogPlace

MS = 1_000_000
lines_of_logs = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40)


@given(lines_of_logs, st.lists(st.integers(0, 40), max_size=5))
def test_each_line_is_new_once_however_often_the_connection_breaks(
    steps: list[tuple[bool, int]], breaks: list[int]
) -> None:
    now_ns, log = 5_000 * MS, []
    for number, (standard_error, later_ms) in enumerate(steps):
        now_ns += later_ms * MS
        log.append(LogLine(unix_ns=now_ns, standard_error=standard_error, text=b"%d" % number))
    place, since_ms, seen = LogPlace(), 0, []
    for length in [*sorted(breaks), len(log)]:
        sent = [line for line in log[:length] if line.unix_ns >= since_ms * MS]
        seen += [line.text for line in sent if place.is_new(line)]
        since_ms = place.begin_again() or 0
    assert seen == [line.text for line in log]


def test_a_stream_that_is_long_silent_does_not_bring_all_of_the_other_again() -> None:
    place = LogPlace()
    assert place.begin_again() is None
    assert place.is_new(LogLine(unix_ns=MS, standard_error=True))
    assert place.is_new(LogLine(unix_ns=10 * STREAMS_APART_MS_MAX * MS))
    assert place.begin_again() == 9 * STREAMS_APART_MS_MAX
