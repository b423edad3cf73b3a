"""What a file may say of scaling by load, and what becomes of the number of tasks when it is deployed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from daemon.orchestration.autoscale_plan import STABILISATION_MS_DEFAULT
from daemon.orchestration.quantities import duration_text
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store

REPLICAS_MAX = 10_000
WINDOW_MS_MAX = 86_400_000
PERCENT_MAX = 1_000
TEXT_CHARACTERS_MAX = 1_024
LABELS_MAX = 16


def autoscale_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """In words, as they go on after the service's name."""
    if not spec.HasField("autoscale"):
        return
    scale, resources = spec.autoscale, spec.resources
    if spec.kind != objects.SERVICE_KIND_REPLICATED:
        yield "it cannot be scaled by its load: only the number of tasks of a replicated service may change"
    if not spec.networks:
        yield "it cannot be scaled by its load, since it is on no network"
    if not 1 <= scale.replicas_min <= scale.replicas_max <= REPLICAS_MAX:
        bounds = f"{scale.replicas_min} to {scale.replicas_max}"
        yield f"it is to have {bounds} tasks by its load, which is no range within 1 and {REPLICAS_MAX}"
    if not (scale.cpu_percent or scale.memory_percent or scale.connections or scale.HasField("metric")):
        yield "it is to be scaled by its load, and by which is not said: cpu, memory, connections or metric"
    if scale.cpu_percent and not (resources.cpu_reserved_millis or resources.cpu_limit_millis):
        yield "it is scaled by a share of its CPU, and neither reserves CPU nor has a limit"
    if scale.memory_percent and not (resources.memory_reserved_bytes or resources.memory_limit_bytes):
        yield "it is scaled by a share of its memory, and neither reserves memory nor has a limit"
    if max(scale.cpu_percent, scale.memory_percent) > PERCENT_MAX:
        yield f"a target of its scaling is more than {PERCENT_MAX}%"
    for window_ms in (scale.stabilisation_ms, scale.up_stabilisation_ms):
        if not 0 <= window_ms <= WINDOW_MS_MAX:
            yield "a stabilisation of its scaling is negative or longer than a day"
    if scale.HasField("metric"):
        yield from metric_problems(scale.metric, "the metric that it is scaled by")
        if not scale.metric.target_thousandths:
            yield "the metric that it is scaled by has no target"


def metric_problems(metric: objects.ScrapedMetric, which: str) -> Iterator[str]:
    if not 0 < metric.port < 1 << 16:
        yield f"{which} has no port"
    if not metric.name:
        yield f"{which} has no name"
    if metric.path and (
        not metric.path.startswith("/") or any(not "!" <= character <= "~" for character in metric.path)
    ):
        yield f"{which} has the path {metric.path!r}, which does not begin with / or is not ASCII"
    texts = [metric.name, metric.path, *metric.labels, *metric.labels.values()]
    if len(metric.labels) > LABELS_MAX or any(len(text) > TEXT_CHARACTERS_MAX for text in texts):
        yield f"{which} has more than {LABELS_MAX} labels, or one that is too long"


def settle_replicas(before: objects.Service | None, spec: objects.ServiceSpec) -> None:
    """What the file says of the number is where a service begins that is scaled by its load (0: it says nothing). One
    that is there and is scaled keeps the tasks that it has. Changes `spec` in place."""
    if not spec.HasField("autoscale"):
        return
    wanted = spec.replicas
    if before is not None and not before.removing and (before.spec.HasField("autoscale") or not wanted):
        wanted = before.spec.replicas
    spec.replicas = min(max(wanted, spec.autoscale.replicas_min), spec.autoscale.replicas_max)


def settled_app(store: Store, app: control.AppSpec, tenant: str) -> control.AppSpec:
    """The app with the numbers of tasks that its services are to have; itself where there is nothing to settle."""
    if not any(spec.HasField("autoscale") for spec in app.services.values()):
        return app
    known = {service.meta.name: service for service in store.table(objects.Service).by("app", (tenant, app.name))}
    settled = control.AppSpec()
    settled.CopyFrom(app)
    for name in sorted(settled.services):
        settle_replicas(known.get(name), settled.services[name])
    return settled


def autoscale_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why the number of tasks follows the load otherwise, for which no task is replaced."""
    was, now = (_words(spec) for spec in (before, after))
    return [] if was == now else [f"scaling {was} -> {now}"]


def _words(spec: objects.ServiceSpec) -> str:
    if not spec.HasField("autoscale"):
        return "by hand"
    scale, metric = spec.autoscale, spec.autoscale.metric
    parts = [
        f"cpu {scale.cpu_percent}%" if scale.cpu_percent else "",
        f"memory {scale.memory_percent}%" if scale.memory_percent else "",
        f"{scale.connections} connections" if scale.connections else "",
    ]
    if spec.autoscale.HasField("metric"):
        labels = ",".join(f"{name}={value}" for name, value in sorted(metric.labels.items()))
        named = metric.name + (f"{{{labels}}}" if labels else "") + (" a second" if metric.per_second else "")
        parts.append(f"{named} {_number(metric.target_thousandths / 1000)} (:{metric.port}{metric.path or '/metrics'})")
    windows = f"down after {duration_text(scale.stabilisation_ms or STABILISATION_MS_DEFAULT)}"
    if scale.up_stabilisation_ms:
        windows += f", up after {duration_text(scale.up_stabilisation_ms)}"
    return f"{scale.replicas_min} to {scale.replicas_max} by {', '.join(filter(None, parts))} ({windows})"


def _number(value: float) -> str:
    return str(int(value)) if math.isclose(value, int(value)) else f"{value:g}"
