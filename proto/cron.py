"""The five fields of cron, as schedules of jobs have them: read, checked, and the next moment of one. Pure.

Fields (crontab(5)): minute, hour, day of the month, month, day of the week; `*`, numbers, ranges, lists, steps, names
of months and days, 7 for Sunday; or @hourly, @daily, @weekly, @monthly, @yearly. Where both days are limited, either
may match.

Where clocks change (as crontab(5) has it): with `*` as hour a schedule follows time as it passes, so it does not come
while the clock skips an hour, and comes in both hours of the same name. With hours said, it comes once a day for each
of them: one that the clock skips comes as long after midnight as on other days, one that comes twice is the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

YEARS_MAX = 9  # between two moments: 29 February, around a century that has none
MINUTE_MS = 60_000
CHANGE_MAX = timedelta(hours=3)  # by which a clock is put forward or back
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)


class CronError(ValueError):
    """A schedule that cannot be read, or a time zone that is not known here; says why."""


@dataclass(frozen=True)
class Cron:
    """One schedule. The sets hold the values that match; `by_time`: it follows time as it passes (see above)."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0: Sunday
    either_day: bool
    by_time: bool
    zone: ZoneInfo

    def next_after(self, unix_ms: int) -> int | None:
        """The first moment after `unix_ms`; None where there is none (31 February)."""
        day = datetime.fromtimestamp(unix_ms // 1000, self.zone).date() - timedelta(days=1)
        last = day.replace(year=min(day.year + YEARS_MAX, 9990), day=1)
        found: int | None = None
        while day <= last:
            if found is not None and found < _unix_ms(datetime(day.year, day.month, day.day, tzinfo=self.zone)):
                return found  # nothing of this day or a later one can come before it
            first = self._first(day, unix_ms)
            found = first if found is None or (first is not None and first < found) else found
            day += timedelta(days=1)
        return found

    def last_before(self, unix_ms: int, since_unix_ms: int) -> int | None:
        """The last moment that is after `since_unix_ms` and not after `unix_ms`."""
        for step in (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=367)):
            begin = unix_ms - int(step.total_seconds() * 1000)
            if begin > since_unix_ms and (found := self._last(begin, unix_ms)) is not None:
                return found
        return self._last(since_unix_ms, unix_ms)

    def _last(self, since_unix_ms: int, unix_ms: int) -> int | None:
        found = None
        moment = self.next_after(since_unix_ms)
        while moment is not None and moment <= unix_ms:
            found, moment = moment, self.next_after(moment)
        return found

    def _matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week

    def _first(self, day: date, after_ms: int) -> int | None:
        """The first moment of a day that is after `after_ms`."""
        if not self._matches(day):
            return None
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        if (midnight - CHANGE_MAX).utcoffset() != (midnight + timedelta(days=1) + CHANGE_MAX).utcoffset():
            return min((each for each in self._moments(midnight) if each > after_ms), default=None)
        begin = _unix_ms(midnight)
        for hour in self.hours:  # no clock is changed on the day: the hours are as long as they should be
            if begin + (hour + 1) * 60 * MINUTE_MS <= after_ms:
                continue
            for minute in self.minutes:
                moment = begin + (hour * 60 + minute) * MINUTE_MS
                if moment > after_ms:
                    return moment
        return None

    def _moments(self, midnight: datetime) -> Iterator[int]:
        """All of the day that begins at `midnight`, in no order."""
        for hour in self.hours:
            for minute in self.minutes:
                first = midnight.replace(hour=hour, minute=minute)
                moment = _unix_ms(first)
                if not self.by_time:
                    yield moment
                elif datetime.fromtimestamp(moment // 1000, self.zone).hour == hour:
                    yield moment
                    yield _unix_ms(first.replace(fold=1))


def parse(text: str, zone: str = "") -> Cron:
    """Raises CronError. `zone`: an IANA name; empty: UTC."""
    words = _MACROS.get(text.strip().lower(), text).lower().split()
    if len(words) != len(_FIELDS):
        raise CronError(f"{text!r} has {len(words)} fields and not five, like '0 3 * * *' (every day at 3:00)")
    sets = [_values(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    try:
        known = ZoneInfo(zone or "UTC")
    except (KeyError, OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise CronError(f"{zone!r} is not a time zone that this host knows, like Europe/Berlin") from error
    return Cron(
        tuple(sorted(sets[0])),
        tuple(sorted(sets[1])),
        sets[2],
        sets[3],
        frozenset(day % 7 for day in sets[4]),
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
        by_time=words[1].startswith("*"),
        zone=known,
    )


def _values(word: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        extent, slash, step_text = part.partition("/")
        step = _number(step_text, name, 1, high, {}) if slash else 1
        if extent == "*":
            first, last = low, high - (name == "day of the week")
        else:
            first_text, dash, last_text = extent.partition("-")
            first = _number(first_text, name, low, high, names)
            last = _number(last_text, name, low, high, names) if dash else high if slash else first
            if last < first:
                raise CronError(f"{part!r} is no range for the {name}: it ends before it begins")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise CronError(f"{text!r} cannot be the {name}: it must be from {low} to {high}")
    return int(text)


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
