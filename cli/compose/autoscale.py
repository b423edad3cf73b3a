"""`x-fairway.autoscale` of a service: between which bounds, and by what, the number of its tasks follows their load."""

from __future__ import annotations

from decimal import Decimal

from cli.compose.metric import PORT_MAX, read_metric_name, read_metric_path
from cli.compose.placement import REPLICAS_MAX
from cli.compose.reader import Field, Reader
from cli.compose.values import decimal
from proto import objects_pb2

COUNT_MAX = 1_000_000
PERCENT_MAX = 1_000
_KEYS = frozenset({"min", "max", "cpu", "memory", "connections", "metric", "stabilisation", "up_stabilisation"})
_HINTS = {
    "requests": "nothing counts requests for tasks; say metric with a counter of theirs and per_second: true",
    "stabilization": "say stabilisation",
    "target": "say cpu, memory, connections or metric",
}
_METRIC_KEYS = frozenset({"port", "path", "name", "labels", "target", "per_second"})


def read_autoscale(reader: Reader, field: Field, scale: objects_pb2.Autoscale) -> None:
    """Fills `scale`."""
    scale.SetInParent()
    entries = reader.known_entries(field, _KEYS, _HINTS)
    scale.replicas_min = 1
    if "min" in entries:
        scale.replicas_min = reader.integer(entries["min"], 1, REPLICAS_MAX, otherwise=1)
    if "max" not in entries:
        reader.refuse(field, "has no max: how many tasks there may be")
    else:
        scale.replicas_max = reader.integer(entries["max"], 1, REPLICAS_MAX)
        if 0 < scale.replicas_max < scale.replicas_min:
            reader.refuse(entries["max"], f"is less than min, {scale.replicas_min}")
    if "cpu" in entries:
        scale.cpu_percent = reader.parsed(entries["cpu"], percent, 1)
    if "memory" in entries:
        scale.memory_percent = reader.parsed(entries["memory"], percent, 1)
    if "connections" in entries:
        scale.connections = reader.integer(entries["connections"], 1, COUNT_MAX)
    if "metric" in entries:
        _metric(reader, entries["metric"], scale.metric)
    if not entries.keys() & {"cpu", "memory", "connections", "metric"}:
        reader.refuse(field, "does not say by what: cpu, memory, connections or metric")
    if "stabilisation" in entries:
        scale.stabilisation_ms = reader.duration_ms(entries["stabilisation"], low=1)
    if "up_stabilisation" in entries:
        scale.up_stabilisation_ms = reader.duration_ms(entries["up_stabilisation"])


def _metric(reader: Reader, field: Field, metric: objects_pb2.ScrapedMetric) -> None:
    metric.SetInParent()
    entries = reader.known_entries(field, _METRIC_KEYS)
    for key in ("port", "name", "target"):
        if key not in entries:
            reader.refuse(field, f"has no {key}")
    if "port" in entries:
        metric.port = reader.integer(entries["port"], 1, PORT_MAX)
    if "path" in entries:
        metric.path = read_metric_path(reader, entries["path"])
    if "name" in entries:
        metric.name = read_metric_name(reader, entries["name"])
    if "labels" in entries:
        metric.labels.update(reader.labels(entries["labels"]))
    if "target" in entries:
        metric.target_thousandths = reader.parsed(entries["target"], thousandths, 1)
    if "per_second" in entries:
        metric.per_second = reader.boolean(entries["per_second"])


def finish_autoscale(
    reader: Reader, entries: dict[str, Field], spec: objects_pb2.ServiceSpec, replicas_said: bool
) -> None:
    """Checks it against the rest of the service (`entries`). A number of tasks that is not said is the cluster's."""
    if not spec.HasField("autoscale"):
        return
    field = reader.entries(entries["x-fairway"])["autoscale"]
    scale, resources = spec.autoscale, spec.resources
    if spec.kind != objects_pb2.SERVICE_KIND_REPLICATED:
        reader.refuse(field, "is for replicated services")
    elif not replicas_said:
        spec.replicas = 0
    elif not scale.replicas_min <= spec.replicas <= scale.replicas_max:
        bounds = f"{scale.replicas_min} to {scale.replicas_max}"
        reader.refuse(field, f"allows {bounds} tasks, and replicas is {spec.replicas}")
    below = reader.entries(field)
    if scale.cpu_percent and not (resources.cpu_reserved_millis or resources.cpu_limit_millis):
        reader.refuse(below["cpu"], "is a share of what deploy.resources reserves, or else limits: say cpus there")
    if scale.memory_percent and not (resources.memory_reserved_bytes or resources.memory_limit_bytes):
        reader.refuse(below["memory"], "is a share of what deploy.resources reserves, or else limits: say memory there")


def percent(text: str) -> int:
    """ "70%" or "70" -> 70."""
    number = text.strip().removesuffix("%").strip()
    if not (number.isascii() and number.isdigit() and 0 < int(number[:6]) <= PERCENT_MAX):
        raise ValueError(f"{text!r} is not a share between 1% and {PERCENT_MAX}%")
    return int(number)


def thousandths(text: str) -> int:
    """ "0.5" -> 500."""
    value = decimal(text)
    if value is None or not Decimal("0.001") <= value <= 10**12:
        raise ValueError(f"{text!r} is not a number between 0.001 and 10^12")
    return int(value * 1000)
