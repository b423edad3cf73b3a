"""Which metrics of a service's tasks hosts are to ask for, and what they said. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from proto import objects_pb2 as objects
from proto.host_pb2 import ScrapedValue, TaskLoad


def key_of(metric: objects.ScrapedMetric) -> bytes:
    """Which metric it is, whatever is wanted of it."""
    plain = objects.ScrapedMetric()
    plain.CopyFrom(metric)
    plain.target_thousandths = 0
    return plain.SerializeToString(deterministic=True)


def wanted_of(service: objects.Service) -> list[objects.ScrapedMetric]:
    """Each once: that by which it is scaled, and those of a canary's check while new tasks come in."""
    found: dict[bytes, objects.ScrapedMetric] = {}
    metrics: list[objects.ScrapedMetric] = []
    if service.spec.autoscale.HasField("metric"):
        metrics.append(service.spec.autoscale.metric)
    if is_checked(service):
        check = service.spec.rollout.check
        metrics += [check.metric, *([check.of] if check.HasField("of") else [])]
    for metric in metrics:
        found.setdefault(key_of(metric), metric)
    return list(found.values())


def is_checked(service: objects.Service) -> bool:
    """A new version of it is on its way, and what its tasks say decides how that goes on."""
    rollout = service.rollout
    if not service.spec.rollout.HasField("check") or service.removing:
        return False
    if rollout.generation != service.generation or rollout.back_to:
        return False
    return rollout.state not in (objects.Rollout.STATE_UNSPECIFIED, objects.Rollout.STATE_DONE)


def value_in(load: TaskLoad, metric: objects.ScrapedMetric) -> float | None:
    found = _scraped(load.scraped, key_of(metric))
    return found.value if found is not None and found.known and math.isfinite(found.value) else None


def problem_in(load: TaskLoad, metric: objects.ScrapedMetric) -> str:
    found = _scraped(load.scraped, key_of(metric))
    return found.problem if found is not None else ""


def _scraped(values: Iterable[ScrapedValue], key: bytes) -> ScrapedValue | None:
    return next((value for value in values if value.metric == key), None)
