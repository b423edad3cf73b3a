"""`x-fairway.rollout.check`: by which metric of its new tasks a canary goes on or back."""

from __future__ import annotations

from cli.compose.metric import PORT_MAX, read_metric_name, read_metric_path
from cli.compose.reader import Field, Reader
from cli.compose.values import decimal
from proto import objects_pb2

CHECK_KEYS = frozenset({"port", "path", "name", "labels", "per_second", "of", "max"})
OF_KEYS = frozenset({"name", "labels"})
_MILLION = 1_000_000
_MAX = 10**12


def read_check(reader: Reader, field: Field, check: objects_pb2.RolloutCheck) -> None:
    """Fills `check`; with `of` it is a share and `max` a percentage, else a number."""
    check.SetInParent()
    metric = check.metric
    entries = reader.known_entries(field, CHECK_KEYS, {"min": "say a metric of what is wrong, and max"})
    for key in ("port", "name", "max"):
        if key not in entries:
            reader.refuse(field, f"has no {key}")
    if "port" in entries:
        metric.port = reader.integer(entries["port"], 1, PORT_MAX)
    if "path" in entries:
        metric.path = read_metric_path(reader, entries["path"])
    if "per_second" in entries:
        metric.per_second = reader.boolean(entries["per_second"])
    if "of" in entries:
        check.of.CopyFrom(metric)
        of = entries["of"]
        below = {"name": of} if of.is_text else reader.known_entries(of, OF_KEYS)
        if "name" not in below:
            reader.refuse(of, "has no name")
        else:
            check.of.name = read_metric_name(reader, below["name"])
        if "labels" in below:
            check.of.labels.update(reader.labels(below["labels"]))
    if "name" in entries:
        metric.name = read_metric_name(reader, entries["name"])
    if "labels" in entries:
        metric.labels.update(reader.labels(entries["labels"]))
    if "max" in entries:
        check.max_millionths = reader.parsed(entries["max"], percentage if "of" in entries else number, 0)


def percentage(text: str) -> int:
    """ "1.5%" -> 15000 millionths; of a share."""
    value, sign, rest = text.strip().partition("%")
    found = decimal(value)
    if not sign or rest or found is None or found > 100:
        raise ValueError(f'{text!r} is not a share of `of`; write it like "1%"')
    return int(found * _MILLION / 100)


def number(text: str) -> int:
    """ "0.5" -> 500000 millionths."""
    found = decimal(text)
    if found is None or found > _MAX:
        raise ValueError(f"{text!r} is not a number from 0 to 10^12; a share needs `of`: of which metric it is")
    return int(found * _MILLION)
