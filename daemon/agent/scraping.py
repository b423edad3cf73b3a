"""Asks tasks for metrics by which their service is scaled or its new version judged: at a bounded rate, with bounded
answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from daemon.agent.prometheus_text import value_of
from daemon.orchestration.scraped_metrics import key_of
from net.errors import NetworkError
from net.task_connections import connect_within
from proto import objects_pb2 as objects
from proto.host_pb2 import ScrapedValue, TaskLoad
from runtime.errors import RuntimeFailure
from runtime.http_get import get

INTERVAL_S = 2.0  # between two questions to one task
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
    metrics: Sequence[objects.ScrapedMetric]


@dataclass(frozen=True)
class _Page:
    source: Source
    port: int
    path: str

    @property
    def key(self) -> tuple[str, int, str]:
        return (self.source.task_id, self.port, self.path)


class Scraping:
    """Knows the last answers of each task."""

    def __init__(self) -> None:
        self._asked_s: dict[tuple[str, int, str], float] = {}  # by page
        self._values: dict[str, dict[bytes, ScrapedValue]] = {}  # by task and metric
        self._counters: dict[tuple[str, bytes], tuple[float, float]] = {}  # (when, value)

    async def run_once(self, sources: Iterable[Source]) -> None:
        """Asks those that are due, a few at a time; forgets all that are not among `sources`."""
        pages: dict[tuple[str, int, str], tuple[_Page, list[objects.ScrapedMetric]]] = {}
        for source in sources:
            for metric in source.metrics:
                page = _Page(source, metric.port, metric.path or PATH_DEFAULT)
                pages.setdefault(page.key, (page, []))[1].append(metric)
        wanted = {(task_id, key_of(metric)) for (task_id, _, _), (_, found) in pages.items() for metric in found}
        self._asked_s = {key: asked_s for key, asked_s in self._asked_s.items() if key in pages}
        self._counters = {key: counter for key, counter in self._counters.items() if key in wanted}
        self._values = {
            task_id: {key: value for key, value in values.items() if (task_id, key) in wanted}
            for task_id, values in self._values.items()
        }
        self._values = {task_id: values for task_id, values in self._values.items() if values}
        now_s = trio.current_time()
        seats = trio.CapacityLimiter(AT_ONCE_MAX)
        async with trio.open_nursery() as nursery:
            for key, (page, metrics) in pages.items():
                if self._asked_s.get(key, -math.inf) + INTERVAL_S <= now_s:
                    self._asked_s[key] = now_s
                    nursery.start_soon(self._ask, page, metrics, seats)

    def tell(self, load: TaskLoad) -> None:
        """Puts what is known of a task into its load."""
        load.scraped.extend(self._values.get(load.task_id, {}).values())

    async def _ask(self, page: _Page, metrics: Sequence[objects.ScrapedMetric], seats: trio.CapacityLimiter) -> None:
        async with seats:
            text, problem = await _fetch(page)
            values = await trio.to_thread.run_sync(_values_of, text, metrics)
        now_s, task_id = trio.current_time(), page.source.task_id
        for metric, value in zip(metrics, values, strict=True):
            key = key_of(metric)
            known = ScrapedValue(metric=key, problem=problem)
            if value is None and not problem:
                with_labels = " with these labels" if metric.labels else ""
                known.problem = f"GET :{page.port}{page.path}: there is no number of {metric.name}{with_labels}"
            if value is not None and metric.per_second:
                before = self._counters.get((task_id, key))
                self._counters[task_id, key] = (now_s, value)
                if before is not None and value >= before[1] and now_s > before[0]:  # less: it began anew
                    known.known, known.value = True, (value - before[1]) / (now_s - before[0])
            elif value is not None:
                known.known, known.value = True, value
            self._values.setdefault(task_id, {})[key] = known


def _values_of(text: str, metrics: Sequence[objects.ScrapedMetric]) -> list[float | None]:
    return [value_of(text, metric.name, dict(metric.labels)) if text else None for metric in metrics]


async def _fetch(page: _Page) -> tuple[str, str]:
    """(text, what is wrong in words)."""
    words = f"no answer within {ANSWER_S_MAX:.0f} s"
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            async with await connect_within(page.source.process_id, page.source.address, page.port) as stream:
                host = f"{page.source.address}:{page.port}"
                status, body = await get(stream, host, page.path, [_ACCEPT], ANSWER_BYTES_MAX)
            if status == 200:
                return body.decode(errors="replace"), ""
            words = f"HTTP {status}"
        except (RuntimeFailure, NetworkError) as error:
            words = str(error)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            words = "the connection broke"
    return "", f"GET :{page.port}{page.path}: {words}"[:WORDS_CHARACTERS_MAX]
