"""What a deploy says though it goes ahead: why tasks may stay pending, or surprise. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.deploying.budget_checks import budget_warnings
from daemon.orchestration import constraints
from daemon.orchestration.image_lookup import find_image, missing_image
from daemon.orchestration.quantities import bytes_text, cpu_text, names_text
from daemon.orchestration.task_states import named_volumes
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store


def warnings_of(store: Store, app: control.AppSpec) -> list[str]:
    """Sorted by service."""
    found: list[str] = []
    for name in sorted(app.services):
        found += [f"service {name}: {words}" for words in _of_service(store, app, name)]
    return found


def _of_service(store: Store, app: control.AppSpec, name: str) -> Iterator[str]:
    spec = app.services[name]
    if find_image(store, spec.container.image) is None:
        yield missing_image(spec.container.image)
    nodes = list(store.table(objects.Node))
    memory_bytes = max((node.description.memory_bytes for node in nodes), default=0)
    cpu_millis = max((node.description.cpu_millis for node in nodes), default=0)
    if spec.resources.memory_reserved_bytes > memory_bytes:
        yield (
            f"it reserves {bytes_text(spec.resources.memory_reserved_bytes)} of memory, and no host has more "
            f"than {bytes_text(memory_bytes)}"
        )
    if spec.resources.cpu_reserved_millis > cpu_millis:
        yield (
            f"it reserves {cpu_text(spec.resources.cpu_reserved_millis)}, and no host has more "
            f"than {cpu_text(cpu_millis)}"
        )
    wanted = constraints.parse_all(spec.constraints)
    if wanted and not any(constraints.first_refusal(wanted, node) is None for node in nodes):
        yield f"no host matches {' and '.join(str(constraint) for constraint in wanted)}"
    volumes = named_volumes(spec)
    if volumes:
        yield (
            f"it keeps data in volume {names_text(volumes, 'volumes')}: its tasks stay on the host that holds it, "
            "also when that host is down"
        )
    yield from budget_warnings(spec)
    yield from _of_dependencies(app, spec)


def _of_dependencies(app: control.AppSpec, spec: objects.ServiceSpec) -> Iterator[str]:
    for dependency in spec.depends_on:
        other = app.services[dependency.service]
        if (
            dependency.condition == objects.Dependency.CONDITION_COMPLETED
            and other.restart.condition == objects.RestartPolicy.CONDITION_ANY
        ):
            yield (
                f"it waits until {dependency.service} has completed, which is started again each time it ends: "
                "give that one `restart: on-failure`"
            )
