"""Where tasks tell a metric, and what it is called: Prometheus' names."""

from __future__ import annotations

import re

from cli.compose.reader import Field, Reader

PORT_MAX = 65_535
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*")


def read_metric_path(reader: Reader, field: Field) -> str:
    path = reader.text(field)
    if path and (not path.startswith("/") or not path.isascii() or " " in path):
        reader.refuse(field, f"{path!r} must begin with / and have no spaces, like /metrics")
    return path


def read_metric_name(reader: Reader, field: Field) -> str:
    name = reader.text(field)
    if name and not _METRIC_NAME.fullmatch(name):
        reader.refuse(field, f"{name!r} is not the name of a metric; labels go under labels")
    return name
