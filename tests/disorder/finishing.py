"""What an operator does who wants all that is under way to come to its end: there are hosts for everything, rollouts go
on, and a version that fails and is not gone back from is replaced."""

from __future__ import annotations

import grpc

from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.churn.operator import code_of
from tests.disorder import apps
from tests.disorder.apps import mark_of
from tests.disorder.clients import REFUSED, Asked, Steer, change_host, deploy
from tests.disorder.model import Model

Rollout = objects.Rollout


def activate(operator: Asked, model: Model) -> None:
    """All hosts, so that every service has some."""
    for number, host in enumerate(model.hosts):
        bay = apps.BAYS[number] if number < len(apps.BAYS) else None
        change_host(operator, host, objects.AVAILABILITY_ACTIVE, bay)


def finish_step(operator: Asked, model: Model, *, mend: bool) -> bool:
    """Whether nothing is under way any more. `mend`: the time is over in which versions that fail may be gone back
    from by the cluster itself."""
    failing: dict[str, set[str]] = {}
    open_rollouts = 0
    for view in operator.call("ListServices", control.ListServicesRequest()).services:
        service = view.service
        wanted = model.at(service.app, service.meta.name, mark_of(service.spec.container.environment)[1])
        if wanted is None or wanted.is_job or service.removing:
            continue
        room = wanted.per_node_max * sum(wanted.bay in ("", host.bay) for host in model.hosts)
        if wanted.per_node_max and service.spec.replicas > room:
            operator.scale(f"{service.app}/{service.meta.name}", room)
            model.app(service.app).scaled(service.meta.name, room)
        if wanted.breaks:
            failing.setdefault(service.app, set()).add(service.meta.name)
        elif service.rollout.generation == service.generation and service.rollout.state != Rollout.STATE_DONE:
            open_rollouts += 1
            _go_on(operator, service)
    for app in model.apps:
        if mend and (services := failing.get(app.name)):
            deploy(operator, app, apps.mended(app.services, services, model.new_version()))
    return not failing and not open_rollouts


def _go_on(operator: Asked, service: objects.Service) -> None:
    request = Steer(service=f"{service.app}/{service.meta.name}", all_steps=True)
    if service.rollout.state == Rollout.STATE_WAITING:
        request.action = Steer.PROMOTE
    elif service.rollout.state in (Rollout.STATE_PAUSED, Rollout.STATE_FAILED):
        request.action = Steer.RESUME
    else:
        return
    try:
        operator.call("SteerRollout", request)
    except grpc.RpcError as error:
        if code_of(error) not in REFUSED:  # it has gone on meanwhile
            raise
