"""A cluster without machines: a real store, the real planners, and hosts that do what they are told.

Time is a number that the test moves; nothing sleeps and nothing is random but what the test draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from daemon.deploying.deploy_plan import plan_deploy
from daemon.leader.report_plan import plan_reports
from daemon.leader.status_plan import StatusMerge
from daemon.orchestration.orchestrator_plan import Plan, plan
from daemon.orchestration.task_states import alive, ended, gone, serving
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import HostReport, TaskReport
from proto.store_pb2 import TransactionResult
from raft.store import ChangeBatch, Store
from raft.transaction import TransactionBuilder

GIB = 1024**3
IMAGE = "docker.io/library/web:1"


class ClusterModel:
    def __init__(self, node_count: int = 3) -> None:
        self.store = Store()
        self.now_unix_ms = 1_000_000
        self._ids = itertools.count(1)
        self.batches: list[ChangeBatch] = []
        self.fails: Callable[[objects.Task], bool] = lambda task: False
        self.unready: Callable[[objects.Task], bool] = lambda task: False
        self.completes: Callable[[objects.Task], bool] = lambda task: False
        cluster = objects.Cluster(
            meta=objects.Meta(id="cluster"),
            network=objects.NetworkSettings(host_pool="10.112.0.0/13", host_prefix_bits=24, vip_pool="10.120.0.0/16"),
        )
        self.apply(TransactionBuilder().create(cluster))
        for number in range(1, node_count + 1):
            self.add_node(f"host-{number}")
        self.load_image(IMAGE)

    def new_id(self) -> str:
        return f"id{next(self._ids):024d}"

    def apply(self, builder: TransactionBuilder) -> TransactionResult:
        transaction = builder.build(self.new_id(), "test", self.now_unix_ms)
        result, changes = self.store.apply(transaction, self.store.revision + 1)
        assert result.code == TransactionResult.OK, result
        if changes:
            self.batches.append(ChangeBatch(result.revision, changes))
        return result

    def add_node(self, name: str, **fields: object) -> objects.Node:
        number = len(self.store.table(objects.Node)) + 1
        node = objects.Node(
            meta=objects.Meta(id=f"node-{name}", name=name, tenant="default"),
            role=objects.NODE_ROLE_VOTER,
            availability=objects.AVAILABILITY_ACTIVE,
            state=objects.NODE_STATE_READY,
            address=f"192.0.2.{number}",
            network=objects.NodeNetwork(block=f"10.112.{number}.0/24", ordinal=number),
            description=objects.NodeDescription(
                hostname=name, architecture="amd64", cpu_millis=4000, memory_bytes=4 * GIB
            ),
        )
        node.MergeFrom(objects.Node(**fields))  # type: ignore[arg-type]
        self.apply(TransactionBuilder().create(node))
        return node

    def load_image(
        self, name: str, content: str = "a", architecture: str = "amd64", node_ids: Sequence[str] = ()
    ) -> None:
        image = objects.Image(
            node_ids=node_ids,
            meta=objects.Meta(id=f"image-{name}", name=name),
            manifest_digest=f"sha256:{content * 64}",
            architecture=architecture,
        )
        self.apply(TransactionBuilder().put(image))

    def change_node(self, name: str, **fields: object) -> None:
        before = self.store.table(objects.Node).unique("name", name)
        assert before is not None
        after = objects.Node()
        after.CopyFrom(before)
        after.MergeFrom(objects.Node(**fields))  # type: ignore[arg-type]
        self.apply(TransactionBuilder().update(after))

    def deploy(self, app: control.AppSpec) -> control.PlanAppReply:
        reply, builder, _ = plan_deploy(self.store, app, self.now_unix_ms, self.new_id)
        self.apply(builder)
        return reply

    def plan(self) -> Plan:
        """One pass of the orchestrator, applied."""
        planned = plan(self.store, self.now_unix_ms, self.new_id)
        if len(planned.builder):
            self.apply(planned.builder)
        return planned

    def host_step(self, only: Iterable[str] | None = None) -> int:
        """Every host that is up takes each of its tasks one step further; the number of tasks that moved."""
        merge = StatusMerge(self.store, self.now_unix_ms)
        moved = 0
        for task in self.store.table(objects.Task):
            node = self.store.get(objects.Node, task.node_id)
            if node is None or node.state != objects.NODE_STATE_READY or gone(task):
                continue
            if only is not None and node.meta.name not in only:
                continue
            report = self._next_report(task)
            if report is not None:
                moved += 1
                merge.add(node.meta.id, [report])
        builder = merge.builder()
        if len(builder):
            self.apply(builder)
        return moved + self._discard_volumes(only)

    def _discard_volumes(self, only: Iterable[str] | None) -> int:
        """Hosts that are up delete the data that nobody needs any more, and say so."""
        reports = []
        for volume in self.store.table(objects.Volume):
            node = self.store.get(objects.Node, volume.node_id)
            if node is None or node.state != objects.NODE_STATE_READY or not volume.discard:
                continue
            if only is None or node.meta.name in only:
                reports.append((node.meta.id, HostReport(volumes_discarded=[volume.meta.id])))
        if reports:
            self.apply(plan_reports(self.store, reports, self.now_unix_ms))
        return len(reports)

    def _next_report(self, task: objects.Task) -> TaskReport | None:
        status = objects.TaskStatus()
        status.CopyFrom(task.status)
        if ended(task):
            return TaskReport(task_id=task.meta.id, status=status, gone=True)
        if task.desired == objects.DESIRED_STATE_STOPPED:
            status.state, status.exit_code = objects.TASK_STATE_EXITED, 143
            return TaskReport(task_id=task.meta.id, status=status)
        if self.fails(task):
            status.state, status.exit_code = objects.TASK_STATE_FAILED, 1
            status.message = "it ended with exit code 1"
            return TaskReport(task_id=task.meta.id, status=status)
        if task.status.state == objects.TASK_STATE_RUNNING and self.completes(task):
            status.state, status.ready = objects.TASK_STATE_EXITED, False
            return TaskReport(task_id=task.meta.id, status=status)
        ready = not self.unready(task)
        if task.status.state == objects.TASK_STATE_RUNNING and task.status.ready == ready:
            return None
        status.state = objects.TASK_STATE_RUNNING
        status.ready = ready
        status.started_unix_ms = status.started_unix_ms or self.now_unix_ms
        return TaskReport(task_id=task.meta.id, status=status)

    def settle(self, rounds_max: int = 60, step_ms: int = 1_100) -> None:
        """Plans, lets hosts work and time pass, until nothing moves and nothing is waited for."""
        for _ in range(rounds_max):
            planned = self.plan()
            moved = self.host_step()
            if not len(planned.builder) and not moved and planned.wake_at_unix_ms is None:
                return
            self.now_unix_ms += step_ms
        raise AssertionError("the cluster does not come to rest")

    def tasks(self, service: str = "") -> list[objects.Task]:
        found = [task for task in self.store.table(objects.Task) if service in ("", task.service)]
        return sorted(found, key=lambda task: (task.meta.name, task.meta.created_unix_ms, task.meta.id))

    def alive(self, service: str = "") -> list[objects.Task]:
        return [task for task in self.tasks(service) if alive(task)]

    def serving(self, service: str = "") -> list[objects.Task]:
        """Tasks that would get traffic: on a host that is up."""
        return [
            task
            for task in self.tasks(service)
            if serving(task) and self.node_of(task).state == objects.NODE_STATE_READY
        ]

    def node_of(self, task: objects.Task) -> objects.Node:
        node = self.store.get(objects.Node, task.node_id)
        assert node is not None
        return node

    def hosts(self, service: str = "") -> list[str]:
        return sorted(self.node_of(task).meta.name for task in self.alive(service) if task.node_id)

    def service(self, name: str) -> objects.Service:
        return next(service for service in self.store.table(objects.Service) if service.meta.name == name)


def service_spec(replicas: int = 1, image: str = "web:1", **fields: Any) -> objects.ServiceSpec:
    spec = objects.ServiceSpec(replicas=replicas, networks=["default"], **fields)
    spec.container.image = image
    return spec


def app_spec(name: str = "shop", volumes: Iterable[str] = (), **services: objects.ServiceSpec) -> control.AppSpec:
    app = control.AppSpec(name=name)
    for service, spec in services.items():
        app.services[service].CopyFrom(spec)
    for volume in volumes:
        app.volumes[volume].SetInParent()
    return app


def with_volume(spec: objects.ServiceSpec, volume: str) -> objects.ServiceSpec:
    spec.container.mounts.add(kind=objects.Mount.KIND_VOLUME, source=volume, target="/data")
    return spec
