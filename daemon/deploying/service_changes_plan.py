"""Scaling and removing what was deployed. Pure: each gives its answer and a transaction."""

from __future__ import annotations

from daemon.deploying.app_checks import REPLICAS_MAX
from daemon.deploying.external_plan import check_removable
from daemon.errors import Kind, Refused
from daemon.lookup import find_app
from daemon.orchestration.kinds import follows_hosts, is_job
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


def plan_scale(store: Store, service: objects.Service, replicas: int) -> tuple[objects.Service, TransactionBuilder]:
    """The service as it will be. Raises Refused."""
    builder = TransactionBuilder()
    if service.removing:
        raise Refused(
            f"service {service.app}/{service.meta.name} is being removed; deploy its app again to have it back",
            Kind.NOT_POSSIBLE,
        )
    if follows_hosts(service.spec) or is_job(service.spec):
        how = "its completions are" if is_job(service.spec) else "the number of its tasks is"
        why = f"{how} given by the hosts" if follows_hosts(service.spec) else f"{how} said in the file: deploy it"
        raise Refused(f"service {service.app}/{service.meta.name} cannot be scaled: {why}", Kind.NOT_POSSIBLE)
    if service.spec.HasField("autoscale"):
        low, high = service.spec.autoscale.replicas_min, service.spec.autoscale.replicas_max
        raise Refused(
            f"service {service.app}/{service.meta.name} cannot be scaled by hand: the number of its tasks follows "
            f"their load, from {low} to {high}; change the bounds of x-fairway.autoscale in its file, or take it out, "
            "and deploy that",
            Kind.NOT_POSSIBLE,
        )
    if replicas > REPLICAS_MAX:
        raise Refused(f"{replicas} replicas are asked for; at most {REPLICAS_MAX} are possible")
    after = objects.Service()
    after.CopyFrom(service)
    after.spec.replicas = replicas
    if after != service:
        builder.update(after)
    return after, builder


def plan_remove_service(store: Store, service: objects.Service) -> TransactionBuilder:
    """Nothing where it is being removed already."""
    builder = TransactionBuilder()
    if not service.removing:
        builder.update(mark_removing(service))
    return builder


def plan_remove_app(
    store: Store, request: control.RemoveAppRequest, now_unix_ms: int
) -> tuple[list[str], TransactionBuilder]:
    """Names of the services that are being removed. Volumes keep their data unless that is asked for; then
    they are marked, and deleted when the last service is gone. Raises Refused: NOT_FOUND, or NOT_POSSIBLE where
    other apps use its networks or volumes."""
    app = find_app(store, request.app)
    key = (app.meta.tenant, app.meta.name)
    builder = TransactionBuilder()
    check_removable(store, app, store.table(objects.Network).by("app", key))
    if request.volumes:
        check_removable(store, app, store.table(objects.Volume).by("app", key))
    names = []
    for service in sorted(store.table(objects.Service).by("app", key), key=lambda one: one.meta.name):
        names.append(service.meta.name)
        if not service.removing:
            builder.update(mark_removing(service))
    if request.volumes:
        for volume in store.table(objects.Volume).by("app", key):
            if not volume.removing:
                marked = objects.Volume()
                marked.CopyFrom(volume)
                marked.removing = True
                builder.update(marked)
    return names, builder


def mark_removing(service: objects.Service) -> objects.Service:
    """The service as it is while its tasks are being stopped."""
    after = objects.Service()
    after.CopyFrom(service)
    after.removing = True
    return after
