"""What a benchmark found: a table with ratios for a person, JSON for a machine, and whether the bars held."""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One quantity, of us and of the peer, each the median of its runs."""

    what: str  # "10 tasks running"
    unit: str  # "s", "tasks/s", "MB"
    fairway: list[float]
    peer_name: str
    peer: list[float]
    ratio_name: str  # "Swarm's time / Fairway's"
    ratio: float | None
    bar: str = ""  # in words; empty: only for information
    met: bool | None = None  # None: there is no bar, or one side was not measured


@dataclass
class Report:
    """A benchmark's result."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def bars_met(self) -> bool:
        """False also where a row with a bar could not be measured."""
        return all(row.met is True for row in self.rows if row.bar)

    def to_json(self) -> str:
        value = {
            "benchmark": self.name,
            "unix_seconds": int(time.time()),
            "kernel": platform.release(),
            "cpu_count": len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "notes": self.notes,
            "bars_met": self.bars_met(),
        }
        return json.dumps(value, indent=2) + "\n"

    def text(self) -> str:
        """For a person."""
        heading = ["", "unit", "fairway", "", "peer", "ratio", "bar", ""]
        lines = [heading]
        for row in self.rows:
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            verdict = {True: "met", False: "MISSED", None: "not measured" if row.bar else ""}[row.met]
            peer = f"{row.peer_name} {shown(row.peer)}"
            what = f"{row.ratio_name}: {ratio}" if row.ratio_name else ratio
            lines.append([row.what, row.unit, shown(row.fairway), "|", peer, what, row.bar, verdict])
        widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, "", *(line.rstrip() for line in table), "", *self.notes])


def shown(values: Sequence[float]) -> str:
    """The median, and the range where there is one."""
    if not values:
        return "-"
    middle = statistics.median(values)
    spread = f" ({min(values):.2f}..{max(values):.2f})" if len(values) > 1 else ""
    return f"{middle:.2f}{spread}"


def quotient(above: Sequence[float], below: Sequence[float]) -> float | None:
    """Ratio of the medians; None where a side was not measured."""
    if not above or not below or statistics.median(below) == 0:
        return None
    return statistics.median(above) / statistics.median(below)
