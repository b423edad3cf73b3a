"""Counters, gauges and histograms with bounded sets of labels, and their text form.

Text: Prometheus exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LABEL_SETS_MAX = 1_024  # of one metric; further ones are counted together, under OTHER
OTHER = "other"
LATENCY_BUCKETS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One line: what is behind the metric's name, label pairs, value."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """A metric with all its samples."""

    name: str
    kind: str  # "counter", "gauge", "histogram"
    help: str
    samples: Sequence[Sample]


Collector = Callable[[], Iterable[Family]]


@dataclass
class Metric:
    """Values by label values, in the order of `labels`; made by a `Registry`."""

    name: str
    kind: str
    help: str
    labels: Sequence[str] = ()
    _values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Counts up; one value for each label."""
        key = self._key(values)
        self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, value: float, *values: str) -> None:
        self._values[self._key(values)] = value

    def forget(self, *values: str) -> None:
        """Drops one set of labels."""
        self._values.pop(values, None)

    def family(self) -> Family:
        samples = [Sample(dict(zip(self.labels, key, strict=True)), value) for key, value in self._values.items()]
        return Family(self.name, self.kind, self.help, samples)

    def _key(self, values: Labels) -> Labels:
        if len(values) != len(self.labels):
            raise ValueError(f"metric {self.name} has the labels {tuple(self.labels)}, not {len(values)} values")
        return values if values in self._values or len(self._values) < LABEL_SETS_MAX else (OTHER,) * len(values)


@dataclass
class Histogram:
    """Counts of observations up to each of `buckets`."""

    name: str
    help: str
    labels: Sequence[str]
    buckets: Sequence[float]
    _counts: dict[Labels, list[int]] = field(default_factory=dict)
    _sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, value: float, *values: str) -> None:
        key = values if values in self._counts or len(self._counts) < LABEL_SETS_MAX else (OTHER,) * len(values)
        counts = self._counts.setdefault(key, [0] * (len(self.buckets) + 1))
        counts[bisect_left(self.buckets, value)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + value

    def family(self) -> Family:
        samples = []
        for key, counts in self._counts.items():
            labels = dict(zip(self.labels, key, strict=True))
            total = 0
            for bound, count in zip((*self.buckets, math.inf), counts, strict=True):
                total += count
                samples.append(Sample({**labels, "le": _number(bound)}, total, "_bucket"))
            samples += [Sample(labels, self._sums[key], "_sum"), Sample(labels, total, "_count")]
        return Family(self.name, "histogram", self.help, samples)


class Registry:
    """All metrics of one daemon."""

    def __init__(self) -> None:
        self._collectors: list[Collector] = []
        self._names: set[str] = set()

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Metric:
        """`name` ends in _total."""
        return self._metric(Metric(name, "counter", help, labels))

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Metric:
        return self._metric(Metric(name, "gauge", help, labels))

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS_SECONDS
    ) -> Histogram:
        self._claim(name)
        made = Histogram(name, help, labels, buckets)
        self._collectors.append(lambda: (made.family(),))
        return made

    def collect(self, collector: Collector) -> None:
        """`collector` is asked for its families whenever the text is made: for values that are elsewhere anyway."""
        self._collectors.append(collector)

    def text(self) -> str:
        lines: list[str] = []
        for collector in self._collectors:
            for family in collector():
                lines += _lines(family)
        return "\n".join(lines) + "\n"

    def _metric(self, made: Metric) -> Metric:
        self._claim(made.name)
        self._collectors.append(lambda: (made.family(),))
        return made

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"there is a metric {name} already")
        self._names.add(name)


def _lines(family: Family) -> list[str]:
    help_text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}"]
    for sample in family.samples:
        pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        labels = f"{{{pairs}}}" if pairs else ""
        lines.append(f"{family.name}{sample.suffix}{labels} {_number(sample.value)}")
    return lines


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
