"""What an operator does to the cluster, by the control API, and when all of it has come about."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from cli.compose import project
from proto import control_pb2 as control
from proto import control_pb2_grpc as control_grpc
from proto import objects_pb2 as objects

CALL_SECONDS_MAX = 10.0
RETRY_SECONDS_MAX = 60.0  # a change of leaders ends within it
POLL_SECONDS = 0.25
_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))


class Stuck(Exception):
    """What was asked for did not come about in time; the message says what is missing."""


class Operator:
    """Hosts' sockets; calls that find no leader are repeated, at the next host where there are several."""

    def __init__(self, *sockets: Path, retry_seconds_max: float = RETRY_SECONDS_MAX) -> None:
        self._channels = [grpc.insecure_channel(f"unix:{socket}", options=_RECONNECT) for socket in sockets]
        self._stubs = [control_grpc.ControlStub(channel) for channel in self._channels]
        self._retry_seconds_max = retry_seconds_max

    @property
    def _control(self) -> control_grpc.ControlStub:
        return self._stubs[0]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def deploy(self, text: str) -> None:
        """Takes a Compose file's text; does not wait for the tasks."""
        spec = project.parse(text, "compose.yaml", Path.cwd(), {}).spec
        request = control.DeployAppRequest(app=spec, request_id=secrets.token_hex(13))
        self._call(lambda: self._control.DeployApp(request, timeout=CALL_SECONDS_MAX))

    def call(self, method: str, request: Message) -> Any:
        """The reply of a method of Control; what is asked must bear being asked twice."""
        return self._call(lambda: getattr(self._control, method)(request, timeout=CALL_SECONDS_MAX))

    def scale(self, service: str, replicas: int) -> None:
        """`service`: APP/NAME."""
        request = control.ScaleServiceRequest(service=service, replicas=replicas)
        self._call(lambda: self._control.ScaleService(request, timeout=CALL_SECONDS_MAX))

    def remove(self, app: str) -> None:
        """With its volumes; fine where it is not there."""
        request = control.RemoveAppRequest(app=app, volumes=True)
        try:
            self._call(lambda: self._control.RemoveApp(request, timeout=CALL_SECONDS_MAX))
        except grpc.RpcError as error:
            if code_of(error) is not grpc.StatusCode.NOT_FOUND:
                raise

    def apps(self) -> set[str]:
        reply = self._call(lambda: self._control.ListApps(control.ListAppsRequest(), timeout=CALL_SECONDS_MAX))
        return {view.app.meta.name for view in reply.apps}

    def tasks(self) -> list[objects.Task]:
        """All that the cluster remembers, ended ones too."""
        request = control.ListTasksRequest(all=True)
        return list(self._call(lambda: self._control.ListTasks(request, timeout=CALL_SECONDS_MAX)).tasks)

    def vip(self, service: str) -> str:
        app, _, name = service.partition("/")
        request = control.ListServicesRequest(app=app, service=name)
        reply = self._call(lambda: self._control.ListServices(request, timeout=CALL_SECONDS_MAX))
        return str(reply.services[0].service.vip)

    def leader(self) -> str:
        """Name of the host that leads."""
        reply = self._call(lambda: self._control.RaftStatus(control.RaftStatusRequest(), timeout=CALL_SECONDS_MAX))
        return next((member.name for member in reply.members if member.node_id == reply.leader_id), "")

    def nodes(self) -> list[objects.Node]:
        reply = self._call(lambda: self._control.ListNodes(control.ListNodesRequest(), timeout=CALL_SECONDS_MAX))
        return [view.node for view in reply.nodes]

    def wait_ready(self, wanted: Mapping[str, int], seconds_max: float) -> None:
        """Returns when each service of `wanted` (APP/NAME -> replicas) has so many ready tasks; Stuck where not."""
        self._wait(lambda: _not_ready(self.tasks(), wanted), seconds_max)

    def wait_settled(self, wanted: Mapping[str, int], seconds_max: float) -> None:
        """As `wait_ready`, and also nothing is left of any task that has ended."""
        self._wait(lambda: _not_ready(self.tasks(), wanted) or _not_gone(self.tasks()), seconds_max)

    def wait_removed(self, apps: set[str], seconds_max: float) -> None:
        self._wait(lambda: ", ".join(sorted(apps & self.apps())), seconds_max)

    def _wait(self, missing: Callable[[], str], seconds_max: float) -> None:
        deadline = time.monotonic() + seconds_max
        while words := missing():
            if time.monotonic() > deadline:
                raise Stuck(f"not within {seconds_max:.0f} s: {words}")
            time.sleep(POLL_SECONDS)

    def _call(self, invoke: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self._retry_seconds_max
        while True:
            try:
                return invoke()
            except grpc.RpcError as error:
                again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
                if code_of(error) not in again or time.monotonic() > deadline:
                    raise
            self._stubs.append(self._stubs.pop(0))
            time.sleep(POLL_SECONDS)


def _not_ready(tasks: list[objects.Task], wanted: Mapping[str, int]) -> str:
    found: Counter[str] = Counter()
    alive: Counter[str] = Counter()
    said: dict[str, str] = {}
    for task in tasks:
        if task.desired != objects.DESIRED_STATE_RUNNING:
            continue
        service = f"{task.app}/{task.service}"
        alive[service] += 1
        found[service] += task.status.ready
        if not task.status.ready:
            said[service] = f"{objects.TaskState.Name(task.status.state)[11:].lower()} {task.status.message}"
    return "; ".join(
        f"{service} has {found[service]} of {count} tasks ready, {alive[service]} wanted ({said.get(service, '')})"
        for service, count in wanted.items()
        if found[service] != count or alive[service] != count
    )


def _not_gone(tasks: list[objects.Task]) -> str:
    left = [task.meta.name for task in tasks if task.desired != objects.DESIRED_STATE_RUNNING and task.address]
    return f"{len(left)} ended tasks are on their hosts still ({', '.join(left[:3])})" if left else ""


def code_of(error: grpc.RpcError) -> object:
    """Its grpc.StatusCode."""
    code = getattr(error, "code", None)
    return code() if callable(code) else None
