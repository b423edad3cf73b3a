"""Schedules: what is read, and the next moment, compared with a walk over every minute, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.cron import CronError, parse

MINUTE_MS = 60_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata")


def unix_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def nexts(schedule: str, zone: str, after: str, count: int) -> list[str]:
    cron, moment, found = parse(schedule, zone), unix_ms(after), []
    for _ in range(count):
        following = cron.next_after(moment)
        assert following is not None
        moment = following
        found.append(datetime.fromtimestamp(moment / 1000, ZoneInfo(zone)).strftime("%m-%d %H:%M%z"))
    return found


def walk(schedule: str, zone: str, begin_ms: int, minutes: int) -> list[int]:
    """Every matching minute, told by the clock on the wall: the definition, slowly."""
    cron, wall = parse(schedule, zone), ZoneInfo(zone)
    found, seen = set(), set()
    for number in range(-1440, minutes + 1):  # from a day before: a time of the wall counts once
        moment = begin_ms + number * MINUTE_MS
        local = datetime.fromtimestamp(moment / 1000, wall)
        # What the wall would show had its clock not been changed since midnight: how times that are skipped are told.
        shown = [local.replace(tzinfo=None)]
        before = (local.astimezone(UTC) - timedelta(hours=3)).astimezone(wall)
        skipped = local.utcoffset() - before.utcoffset()  # type: ignore[operator]
        if not cron.by_time and skipped > timedelta(0):
            unchanged = local.replace(tzinfo=None) - skipped
            if unchanged.replace(tzinfo=wall).astimezone(UTC).astimezone(wall).replace(tzinfo=None) != unchanged:
                shown.append(unchanged)
        for each in shown:
            day = each.date()
            either = (day.day in cron.days, day.isoweekday() % 7 in cron.weekdays)
            right_day = any(either) if cron.either_day else all(either)
            if each.minute in cron.minutes and each.hour in cron.hours and day.month in cron.months and right_day:
                if cron.by_time or each not in seen:
                    found.add(moment)
                seen.add(each)
    return sorted(moment for moment in found if moment > begin_ms)


MINUTE = st.sampled_from(["*", "*/7", "0", "30", "1-3", "0,15,45"])
HOUR = st.sampled_from(["*", "*/5", "0", "2", "1-3", "0,1,2,23"])
DAY = st.sampled_from(["*", "*", "1", "10-20", "*/2"])
WEEKDAY = st.sampled_from(["*", "*", "sun", "mon-fri", "0,6", "7"])
CHANGES = ("2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-03-08T07:00Z", "2026-11-01T06:00Z", "2026-04-04T15:00Z",
           "2026-10-03T15:30Z", "2026-03-08T05:00Z", "2026-11-01T05:00Z", "2026-06-15T12:00Z")  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(MINUTE, HOUR, DAY, WEEKDAY, st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-900, 900))
def test_the_next_moment_is_that_of_the_clock_on_the_wall(
    minute: str, hour: str, day: str, weekday: str, zone: str, change: str, offset: int
) -> None:
    schedule = f"{minute} {hour} {day} * {weekday}"
    begin = unix_ms(change) + offset * MINUTE_MS
    expected = walk(schedule, zone, begin, 1440)
    cron, moment, found = parse(schedule, zone), begin, []
    while (following := cron.next_after(moment)) is not None and following <= begin + 1440 * MINUTE_MS:
        assert following > moment
        moment = following
        found.append(moment)
    assert found == expected
    assert cron.last_before(begin + 1440 * MINUTE_MS, begin) == (expected[-1] if expected else None)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29 03:30+0200", "03-30 02:30+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 01:30+0100", "03-29 03:30+0200"]),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00Z",
            ["10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100"],
        ),
        ("0 12 13 * fri", "UTC", "2026-03-29T00:00Z", ["04-03 12:00+0000", "04-10 12:00+0000", "04-13 12:00+0000"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", ["02-29 00:00+0000"]),
        ("@weekly", "UTC", "2026-11-22T00:00Z", ["11-29 00:00+0000"]),
        ("59 23 31 dec 7", "UTC", "2026-12-27T23:59Z", ["12-31 23:59+0000", "12-05 23:59+0000"]),
    ],
)
def test_moments(schedule: str, zone: str, after: str, expected: list[str]) -> None:
    assert nexts(schedule, zone, after, len(expected)) == expected


def test_a_day_that_never_comes_has_no_moment() -> None:
    assert parse("0 0 31 2 *").next_after(0) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [
        ("* * * *", "", "has 4 fields and not five"),
        ("60 * * * *", "", "'60' cannot be the minute: it must be from 0 to 59"),
        ("* 5-2 * * *", "", "it ends before it begins"),
        ("* * 0 * *", "", "day of the month"),
        ("* * * * x", "", "day of the week"),
        ("*/0 * * * *", "", "'0' cannot be the minute"),
        ("* * * * *", "Mars/Olympus", "is not a time zone"),
        ("* * * * *", "../etc/passwd", "is not a time zone"),
    ],
)
def test_what_cannot_be_read_says_why(schedule: str, zone: str, words: str) -> None:
    with pytest.raises(CronError, match=words.replace("*", r"\*").replace("(", r"\(")):
        parse(schedule, zone)
