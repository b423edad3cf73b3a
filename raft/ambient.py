"""Clock, randomness and serialisation of PySyncObj, taken away from it.

PySyncObj 0.3.17 reads a global clock and a global random generator. `ambient` gives it the caller's for
the time of one call, a thread at a time, so that many members with clocks of their own run in one process
(a simulator, tests) and every decision is a function of its inputs. It also pickles: what it receives,
logs and dumps would be code for whoever can reach its port. Nothing of ours goes through that; here the
functions themselves are taken out, so that a path that was overlooked fails instead of unpickling.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj

_Seen = tuple[float | None, Callable[[], float] | None]


class _Ambient(threading.local):
    now: float | None = None
    random: Callable[[], float] | None = None


_ambient = _Ambient()


class _NoRandom:
    """Stands where PySyncObj looks for the module `random`."""

    @staticmethod
    def random() -> float:
        if _ambient.random is None:
            raise RuntimeError("PySyncObj was called outside of raft.ambient.ambient()")
        return _ambient.random()


def _monotonic() -> float:
    return time.monotonic() if _ambient.now is None else _ambient.now


def _refuse(*_arguments: Any, **_options: Any) -> NoReturn:
    raise RuntimeError("pickle is not used in Fairway (raft/ambient.py)")


class ambient:  # a class, since a generator would cost ten times as much, several times a message
    """Within it PySyncObj sees `now` (seconds, standing still) and `random` (uniform in [0, 1))."""

    __slots__ = ("_before", "_within")

    def __init__(self, now: float, random: Callable[[], float]) -> None:
        self._within: _Seen = (now, random)
        self._before: _Seen = (None, None)

    def __enter__(self) -> None:
        self._before = (_ambient.now, _ambient.random)
        _ambient.now, _ambient.random = self._within

    def __exit__(self, *_error: object) -> None:
        _ambient.now, _ambient.random = self._before


def _install() -> None:
    pysyncobj.syncobj.monotonicTime = _monotonic
    pysyncobj.syncobj.random = _NoRandom
    for name in ("load", "loads", "dump", "dumps"):
        setattr(pysyncobj.pickle, name, _refuse)
    pysyncobj.journal.loads = _refuse
    pysyncobj.journal.dumps = _refuse


_install()
