"""Asks tasks for the metric by which their service is scaled: at a bounded rate, with bounded answers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from daemon.agent.prometheus_text import value_of
from net.errors import NetworkError
from net.task_connections import connect_within
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad
from runtime.errors import RuntimeFailure
from runtime.http_get import get

INTERVAL_S = 3.0  # between two questions to one task
ANSWER_S_MAX = 2.0
ANSWER_BYTES_MAX = 2 << 20
AT_ONCE_MAX = 8
WORDS_CHARACTERS_MAX = 200
PATH_DEFAULT = "/metrics"
_ACCEPT = ("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")


@dataclass(frozen=True)
class Source:
    task_id: str
    process_id: int
    address: str
    metric: objects.ScrapedMetric


@dataclass
class _Known:
    asked_s: float  # when it was asked last
    counter: tuple[float, float] | None = None  # (when, value), of a counter
    value: float | None = None
    problem: str = ""


class Scraping:
    """Knows the last answer of each task."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    async def run_once(self, sources: Iterable[Source]) -> None:
        """Asks those that are due, a few at a time; forgets all that are not among `sources`."""
        wanted = {source.task_id: source for source in sources}
        self._known = {task_id: known for task_id, known in self._known.items() if task_id in wanted}
        now_s = trio.current_time()
        seats = trio.CapacityLimiter(AT_ONCE_MAX)
        async with trio.open_nursery() as nursery:
            for source in wanted.values():
                known = self._known.setdefault(source.task_id, _Known(-math.inf))
                if known.asked_s + INTERVAL_S <= now_s:
                    known.asked_s = now_s
                    nursery.start_soon(self._ask, source, known, seats)

    def tell(self, load: TaskLoad) -> None:
        """Puts what is known of a task into its load."""
        known = self._known.get(load.task_id)
        if known is None:
            return
        if known.value is not None:
            load.metric, load.metric_known = known.value, True
        load.metric_problem = known.problem

    async def _ask(self, source: Source, known: _Known, seats: trio.CapacityLimiter) -> None:
        async with seats:
            value, problem = await _scrape(source)
        now_s, before = trio.current_time(), known.counter
        known.problem, known.value = problem, value
        if source.metric.per_second and value is not None:
            known.counter, known.value = (now_s, value), None
            if before is not None and value >= before[1] and now_s > before[0]:  # less: it began anew
                known.value = (value - before[1]) / (now_s - before[0])


async def _scrape(source: Source) -> tuple[float | None, str]:
    """(value, what is wrong in words)."""
    metric = source.metric
    path = metric.path or PATH_DEFAULT
    words = f"no answer within {ANSWER_S_MAX:.0f} s"
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            async with await connect_within(source.process_id, source.address, metric.port) as stream:
                host = f"{source.address}:{metric.port}"
                status, body = await get(stream, host, path, [_ACCEPT], ANSWER_BYTES_MAX)
            words = f"HTTP {status}"
            if status == 200:
                text = body.decode(errors="replace")
                value = await trio.to_thread.run_sync(value_of, text, metric.name, dict(metric.labels))
                if value is not None:
                    return value, ""
                words = f"there is no number of {metric.name}" + (" with these labels" if metric.labels else "")
        except (RuntimeFailure, NetworkError) as error:
            words = str(error)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            words = "the connection broke"
    return None, f"GET :{metric.port}{path}: {words}"[:WORDS_CHARACTERS_MAX]
