"""When the next scheduled backup is due, what it is called, and which old ones go. Pure."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

SUFFIX = ".fairway-backup"
_NAME = re.compile(r"(?P<cluster>.+)-(?P<moment>\d{8}T\d{6})Z-r(?P<revision>\d+)" + re.escape(SUFFIX))
_MOMENT = "%Y%m%dT%H%M%S"


@dataclass(frozen=True)
class Step:
    """What to do now: whether a backup is due, else in how many milliseconds; files to remove."""

    due: bool
    wait_ms: int
    remove: tuple[str, ...]


def file_name(cluster_name: str, now_unix_ms: int, revision: int) -> str:
    """Sorts by time for one cluster: prod-20260131T120000Z-r1234.fairway-backup."""
    moment = time.strftime(_MOMENT, time.gmtime(now_unix_ms / 1000))
    return f"{cluster_name}-{moment}Z-r{revision}{SUFFIX}"


def plan_schedule(names: Iterable[str], cluster_name: str, now_unix_ms: int, every_ms: int, keep: int) -> Step:
    """`names`: files of the folder; what is not a backup of this cluster by its name is never touched.

    A clock that went back does not stop backups: one that seems to come from the future counts as made now.
    """
    made = sorted((moment, name) for name in names if (moment := _made_unix_ms(name, cluster_name)) is not None)
    remove = tuple(name for _, name in made[: max(len(made) - keep, 0)])
    if not made:
        return Step(True, 0, remove)
    age_ms = max(now_unix_ms - made[-1][0], 0)
    return Step(age_ms >= every_ms, max(every_ms - age_ms, 0), remove)


def _made_unix_ms(name: str, cluster_name: str) -> int | None:
    match = _NAME.fullmatch(name)
    if match is None or match["cluster"] != cluster_name:
        return None
    try:
        moment = time.strptime(match["moment"], _MOMENT)
    except ValueError:
        return None
    return calendar.timegm(moment) * 1000
