"""The value of one metric in Prometheus' text. Pure.

Exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/); OpenMetrics' lines are read too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_LABELS = r'(?:[^"{}]|"(?:[^"\\]|\\.)*")*'
_LINE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:.]*)\s*(?:\{{({_LABELS})\}})?\s+([^\s#}}]+)(?:\s.*)?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_.]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPED = re.compile(r"\\(.)")


def value_of(text: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The sum of the samples of `name` that have all of `labels`; None where there is none that is a number."""
    found = []
    for line in text.splitlines():
        if not line.startswith(name):  # which nearly all lines do not
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] != name or not labels.items() <= _labels(match[2] or "").items():
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            found.append(value)
    return sum(found) if found else None


def _labels(text: str) -> dict[str, str]:
    return {match[1]: _ESCAPED.sub(_unescaped, match[2]) for match in _LABEL.finditer(text)}


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
