"""The same random changes at the planners alone, with hosts that do what they are told, end in what was asked for."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from daemon.api.grpc_errors import STATUS
from daemon.deploying.deploy_plan import plan_deploy, plan_remove_app, plan_remove_service, plan_scale, plan_update_node
from daemon.deploying.job_changes import plan_trigger
from daemon.deploying.rollout_changes_plan import plan_steer
from daemon.errors import Kind, Refused
from daemon.lookup import find_service
from daemon.orchestration.kinds import is_job
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.schema import KINDS
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel
from tests.disorder import judging
from tests.disorder.clients import app_change, host_change
from tests.disorder.finishing import activate, finish_step
from tests.disorder.model import Model
from tests.disorder.stored import Stored

SEEDS = 6
CHANGES = 40
STEPS_MAX = 200
STEP_MS = 1_100


class Answer(grpc.RpcError):
    """A refusal as a client sees it."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self._refused = refused

    def code(self) -> grpc.StatusCode:
        return STATUS[self._refused.kind]


class Planners:
    """Control, as far as the changes need it, on a store without a cluster."""

    def __init__(self, cluster: ClusterModel) -> None:
        self._cluster = cluster

    def scale(self, service: str, replicas: int) -> None:
        self.call("ScaleService", control.ScaleServiceRequest(service=service, replicas=replicas))

    def remove(self, app: str) -> None:
        with contextlib.suppress(Answer):
            self.call("RemoveApp", control.RemoveAppRequest(app=app, volumes=True))

    def call(self, method: str, request: Message) -> Any:
        try:
            return self._answer(method, request)
        except Refused as refused:
            raise Answer(refused) from refused

    def _answer(self, method: str, request: Any) -> Any:
        cluster = self._cluster
        store, now_unix_ms = cluster.store, cluster.now_unix_ms
        match method:
            case "DeployApp":
                request.app.ClearField("files")
                for spec in request.app.services.values():
                    spec.container.ClearField("files")
                _, builder, _ = plan_deploy(store, request.app, now_unix_ms, cluster.new_id)
            case "ScaleService":
                _, builder = plan_scale(store, find_service(store, request.service), request.replicas)
            case "RemoveApp":
                _, builder = plan_remove_app(store, request, now_unix_ms)
            case "RemoveService":
                builder = plan_remove_service(store, find_service(store, request.service))
            case "TriggerJob":
                _, builder = plan_trigger(find_service(store, request.service), now_unix_ms)
            case "SteerRollout":
                (after, _), builder = plan_steer(store, find_service(store, request.service), request, now_unix_ms)
                cluster.apply(builder)
                return control.SteerRolloutReply(service=after)
            case "UpdateNode":
                _, builder = plan_update_node(store, request)
            case "ListServices":
                views = [control.ServiceView(service=service) for service in store.table(objects.Service)]
                return control.ListServicesReply(services=views)
            case _:
                raise Refused(f"{method} needs a cluster", Kind.NOT_POSSIBLE)
        cluster.apply(builder)
        return None


def _fails(task: objects.Task) -> bool:
    return "exit 3" in " ".join(task.spec.container.command.values)


def _stored(cluster: ClusterModel) -> Stored:
    return Stored(cluster.store.revision, {kind.message: list(cluster.store.table(kind.message)) for kind in KINDS})


def _step(cluster: ClusterModel) -> bool:
    """Whether anything happened."""
    planned = cluster.plan()
    moved = cluster.host_step()
    cluster.now_unix_ms += STEP_MS
    return bool(len(planned.builder) or moved or planned.wake_at_unix_ms is not None)


def _lease_nodes(cluster: ClusterModel) -> None:
    builder = TransactionBuilder()
    for node in cluster.store.table(objects.Node):
        for name, kind in (
            (f"block/{node.network.block}", objects.Lease.KIND_HOST_BLOCK),
            (f"ordinal/node/{node.network.ordinal}", objects.Lease.KIND_NODE_ORDINAL),
        ):
            builder.create(objects.Lease(meta=objects.Meta(id=name, name=name), kind=kind, holder_id=node.meta.id))
    cluster.apply(builder)


def run(seed: int, changes: int) -> list[str]:
    """What is wrong in the end."""
    choose = random.Random(seed)
    cluster = ClusterModel(3)
    cluster.load_image("docker.io/library/static-web:1")
    cluster.fails = _fails
    cluster.completes = lambda task: is_job(task.spec)
    names = [node.meta.name for node in cluster.store.table(objects.Node)]
    _lease_nodes(cluster)
    model, planners = Model([f"d-{number}" for number in range(5)], names, 18000), Planners(cluster)
    for _ in range(changes):
        if choose.random() < 0.15:
            state = choose.choice([objects.NODE_STATE_READY, objects.NODE_STATE_READY, objects.NODE_STATE_DOWN])
            cluster.change_node(choose.choice(names), state=state)
        if choose.random() < 0.1:
            _, change = host_change(choose, planners, choose.choice(model.hosts))
        else:
            _, change = app_change(choose, planners, model, choose.choice(model.apps))
        with contextlib.suppress(Answer):
            change()
        for _ in range(choose.randint(0, 3)):
            if choose.random() < 0.7:
                cluster.plan()
            cluster.host_step(choose.sample(names, choose.randint(0, 3)))
            cluster.now_unix_ms += choose.randint(0, 3_000)
    for name in names:
        cluster.change_node(name, state=objects.NODE_STATE_READY)
    activate(planners, model)
    for number in range(STEPS_MAX):
        # Versions that fail may be gone back from; what then fails still is mended.
        done = finish_step(planners, model, mend=number > 20)
        if not _step(cluster) and done:
            break
    bays = {host.name: host.bay for host in model.hosts}
    return judging.differences(model.services(), model.versions(), bays, "d-", _stored(cluster), {})


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_changes_end_in_what_was_asked_for(seed: int) -> None:
    assert run(seed, CHANGES) == []
