"""What the demonstration sees of the cluster: nodes, services and tasks, by the same API as everybody."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from lab.layout import LabError
from proto import control_pb2, control_pb2_grpc, objects_pb2

_POLL_SECONDS = 0.1
_CALL_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class TaskSight:
    """One task that has not ended, as the cluster tells it."""

    task_id: str
    name: str
    service: str
    address: str
    host: str  # empty while it waits for one
    ready: bool
    words: str  # state, and why


@dataclass(frozen=True)
class ClusterSight:
    tasks: list[TaskSight]
    wanted: dict[str, int]  # service -> replicas
    hosts: dict[str, bool]  # name -> ready

    def on_host(self, host: str) -> list[TaskSight]:
        return [task for task in self.tasks if task.host == host]

    def of_service(self, service: str) -> list[TaskSight]:
        return [task for task in self.tasks if task.service == service]

    def complete(self, without_host: str = "") -> bool:
        """As many tasks of each service are ready as are wanted, none of them on `without_host`."""
        return bool(self.wanted) and all(
            sum(task.ready and task.host != without_host for task in self.of_service(service)) >= count
            for service, count in self.wanted.items()
        )


def _state_words(status: objects_pb2.TaskStatus) -> str:
    """ "running", "pending no host has 8 GiB of memory"."""
    state = objects_pb2.TaskState.Name(status.state).removeprefix("TASK_STATE_").lower()
    return f"{state} {status.message}".strip()


@contextlib.contextmanager
def _refusals_in_words() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        details = getattr(error, "details", None)
        raise LabError((details() if callable(details) else "") or str(error)) from error


class Observer:
    """Asks the daemon behind one host's socket; close it when done."""

    def __init__(self, socket: Path, app: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._control = control_pb2_grpc.ControlStub(self._channel)
        self._app = app

    def close(self) -> None:
        self._channel.close()

    @_refusals_in_words()
    def look(self) -> ClusterSight:
        """LabError where the cluster cannot answer, for want of a leader, say."""
        reply = self._control.ListTasks(control_pb2.ListTasksRequest(app=self._app), timeout=_CALL_TIMEOUT_SECONDS)
        nodes = self._control.ListNodes(control_pb2.ListNodesRequest(), timeout=_CALL_TIMEOUT_SECONDS).nodes
        names = {view.node.meta.id: view.node.meta.name for view in nodes}
        tasks = [
            TaskSight(
                task_id=task.meta.id,
                name=task.meta.name,
                service=task.service,
                address=task.address,
                host=names.get(task.node_id, ""),
                ready=task.status.ready and task.desired == objects_pb2.DESIRED_STATE_RUNNING,
                words=_state_words(task.status),
            )
            for task in reply.tasks
        ]
        wanted = {service.meta.name: service.spec.replicas for service in reply.services}
        ready = {view.node.meta.name: view.node.state == objects_pb2.NODE_STATE_READY for view in nodes}
        return ClusterSight(tasks, wanted, ready)

    @_refusals_in_words()
    def leader(self) -> str:
        """Name of the host that leads; empty where none is known."""
        reply = self._control.GetCluster(control_pb2.GetClusterRequest(), timeout=_CALL_TIMEOUT_SECONDS)
        return next((node.meta.name for node in reply.nodes if node.meta.id == reply.leader_id), "")

    @_refusals_in_words()
    def vips(self) -> dict[str, str]:
        """Service name -> its virtual address."""
        reply = self._control.ListServices(
            control_pb2.ListServicesRequest(app=self._app), timeout=_CALL_TIMEOUT_SECONDS
        )
        return {view.service.meta.name: view.service.vip for view in reply.services}

    def wait(
        self, condition: Callable[[ClusterSight], bool], what: str, timeout_seconds: float
    ) -> tuple[ClusterSight, float]:
        """Looks until `condition` holds: what was seen, and the seconds it took. LabError says what not."""
        began = time.monotonic()
        last = "the cluster did not answer"
        while time.monotonic() - began < timeout_seconds:
            try:
                sight = self.look()
            except LabError as error:
                last = str(error)
            else:
                if condition(sight):
                    return sight, time.monotonic() - began
                waiting = [f"{task.name}: {task.words}" for task in sight.tasks if not task.ready]
                last = "; ".join(waiting) or f"hosts ready: {sight.hosts}"
            time.sleep(_POLL_SECONDS)
        raise LabError(f"{what}: not within {timeout_seconds:.0f} s. Seen last: {last}")
