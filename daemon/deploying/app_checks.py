"""What must hold of an app before it is deployed, whoever wrote its spec. Pure; raises Refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

from daemon.deploying.autoscale_checks import autoscale_problems
from daemon.deploying.budget_checks import budget_problems
from daemon.deploying.container_checks import container_problems
from daemon.deploying.device_checks import device_problems
from daemon.deploying.exposure_checks import (
    balance_problems,
    check_ports_between,
    floating_problems,
    host_network_problems,
    port_problems,
)
from daemon.deploying.external_plan import shared_name_problems
from daemon.deploying.job_changes import job_problems
from daemon.deploying.lifecycle_checks import lifecycle_problems
from daemon.deploying.name_checks import name_problems
from daemon.deploying.placement_checks import placement_problems
from daemon.deploying.precedence_checks import precedence_problems
from daemon.deploying.probe_checks import probe_problems
from daemon.deploying.rollout_checks import rollout_problems
from daemon.deploying.sharing_checks import sharing_problems
from daemon.deploying.task_file_plan import mount_problems
from daemon.errors import Refused
from daemon.orchestration import constraints
from daemon.orchestration.sharing import owner_name
from daemon.orchestration.task_states import named_volumes
from daemon.policies.policy_checks import service_policy_problems
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from runtime.errors import InvalidRequest
from runtime.references import normalise_reference

SERVICES_MAX = 500  # of one app
REPLICAS_MAX = 10_000  # of one service
DEFAULT_NETWORK = "default"

# RFC 1123 labels; services also with '_', as Compose files have it: both are names in DNS.
_APP_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_INNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_app(app: control.AppSpec) -> None:
    """Everything that can be said without looking at the cluster. Raises Refused (INVALID)."""
    for what, name in (("app", app.name), ("tenant", app.tenant or "default")):
        if _APP_NAME.fullmatch(name) is None:
            raise Refused(f"{name!r} cannot be the name of the {what}: {_NAME_RULE}")
    if not app.services:
        raise Refused(f"app {app.name} has no service; to take the app away use `fairway rm {app.name}`")
    if len(app.services) > SERVICES_MAX:
        raise Refused(f"app {app.name} has {len(app.services)} services; at most {SERVICES_MAX} are possible")
    for what, names in (("network", app.networks), ("volume", app.volumes)):
        for name in names:
            if _INNER_NAME.fullmatch(name) is None:
                raise Refused(f"{name!r} cannot be the name of a {what}: use letters, digits, '.', '_' and '-'")
    for name in sorted(app.services):
        if _APP_NAME.fullmatch(name) is None:
            raise Refused(f"{name!r} cannot be the name of a service: {_NAME_RULE}")
        for problem in _problems(app, name, app.services[name]):
            raise Refused(f"service {name}: {problem}")
    for problem in shared_name_problems(app):
        raise Refused(problem)
    check_ports_between(app)
    _check_cycles(app)


_NAME_RULE = "use at most 63 lower-case letters, digits, '-' and '_', with a letter or digit at both ends"


def app_name_problem(name: str) -> str:
    """Why `name` cannot be that of an app or a tenant; empty where it can."""
    return "" if _APP_NAME.fullmatch(name) else _NAME_RULE


def _problems(app: control.AppSpec, name: str, spec: objects.ServiceSpec) -> Iterator[str]:
    if not spec.container.image:
        yield "it names no image"
    try:
        normalise_reference(spec.container.image)
    except InvalidRequest as error:
        yield str(error)
    if spec.replicas > REPLICAS_MAX:
        yield f"{spec.replicas} replicas are asked for; at most {REPLICAS_MAX} are possible"
    for text in spec.constraints:
        constraints.parse(text)
    for network in spec.networks:
        if network != DEFAULT_NETWORK and network not in app.networks:
            yield f"network {network} is not defined in the app"
    for volume in named_volumes(spec):
        if volume not in app.volumes:
            yield f"volume {volume} is not defined in the app"
    for mount in spec.container.mounts:
        if not mount.target.startswith("/"):
            yield f"the mount target {mount.target!r} is not an absolute path"
    for dependency in spec.depends_on:
        if dependency.service == name:
            yield "it depends on itself"
        if dependency.service not in app.services:
            yield f"it depends on service {dependency.service}, which is not in the app"
    yield from container_problems(spec.container)
    yield from probe_problems(spec.container)
    yield from lifecycle_problems(spec.container)
    yield from name_problems(spec)
    yield from mount_problems(spec)
    yield from port_problems(spec)
    yield from balance_problems(spec.balance)
    yield from floating_problems(spec)
    yield from host_network_problems(spec)
    yield from placement_problems(app, spec)
    yield from precedence_problems(app, name, spec)
    yield from sharing_problems(app, name, spec)
    yield from rollout_problems(spec)
    yield from budget_problems(spec)
    if spec.HasField("policy"):
        yield from service_policy_problems(spec.policy)
    yield from _resource_problems(spec.resources)
    yield from device_problems(spec.resources)
    yield from autoscale_problems(spec)
    yield from job_problems(spec)


def _resource_problems(resources: objects.Resources) -> Iterator[str]:
    for words, limit, reserved in (
        ("CPU", resources.cpu_limit_millis, resources.cpu_reserved_millis),
        ("memory", resources.memory_limit_bytes, resources.memory_reserved_bytes),
    ):
        if limit < 0 or reserved < 0:
            yield f"its {words} limit or reservation is negative"
        if limit and reserved > limit:
            yield f"it reserves more {words} than its limit allows"


def _check_cycles(app: control.AppSpec) -> None:
    done: set[str] = set()
    for start in sorted(app.services):
        path: list[str] = []
        stack = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                done.add(path.pop())
                continue
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                raise Refused(f"the services wait for each other in a circle: {circle}")
            if name in done:
                continue
            path.append(name)
            stack.append((name, True))
            needed = [dependency.service for dependency in app.services[name].depends_on]
            needed += filter(None, [owner_name(app.services[name])])
            stack += [(each, False) for each in needed]
