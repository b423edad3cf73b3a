"""Containers and their tasks in containerd: made in four calls, removed from any half-made state."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio
from google.protobuf.any_pb2 import Any as AnyMessage

from proto import containerd_pb2 as api
from runtime import cgroup
from runtime.cgroup import CgroupHost
from runtime.connection import Connection
from runtime.errors import AlreadyExists, NotFound, NotPossible, RuntimeFailure
from runtime.model import EXIT_CODE_UNKNOWN, ContainerState, ObservedContainer, RuntimeSettings
from runtime.oci_runtimes import OciRuntime

log = logging.getLogger(__name__)

SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
CREATE_TIMEOUT_MS = 120_000
KILL_WAIT_MS_MAX = 30_000
KILL_POLL_MS_MIN = 500
KILL_POLL_MS_MAX = 4_000
CGROUP_POLL_MS = 20
CGROUP_REMOVE_TRIES_MAX = 50

_STATES: dict[int, ContainerState] = {
    api.Process.Status.CREATED: "created",
    api.Process.Status.RUNNING: "running",
    api.Process.Status.STOPPED: "stopped",
    api.Process.Status.PAUSED: "paused",
    api.Process.Status.PAUSING: "paused",
}


class Containers:
    def __init__(self, connection: Connection, settings: RuntimeSettings, host: CgroupHost) -> None:
        self._connection = connection
        self._settings = settings
        self._host = host

    async def create(
        self, container_id: str, labels: dict[str, str], image: str, spec: dict[str, Any], runtime: OciRuntime
    ) -> None:
        """The container, which refers to its snapshot; so it comes first, or that might be collected."""
        container = api.Container(
            id=container_id,
            labels=labels,
            image=image,
            runtime=api.ContainerRuntime(name=runtime.shim, options=runtime.options),
            spec=AnyMessage(type_url=SPEC_TYPE, value=json.dumps(spec, separators=(",", ":")).encode()),
            snapshotter=self._settings.snapshotter,
            snapshot_key=container_id,
        )
        await self._connection.do("containers.v1.Containers/Create", api.CreateContainerRequest(container=container))

    async def prepare(self, container_id: str, top_snapshot: str) -> Sequence[api.Mount]:
        """The writable snapshot on top of the image's; returns the mounts of the root file system."""
        method = "snapshots.v1.Snapshots/Prepare"
        request = api.PrepareSnapshotRequest(
            snapshotter=self._settings.snapshotter, key=container_id, parent=top_snapshot
        )
        try:
            reply = await self._connection.unary(method, request, api.MountsResponse)
        except AlreadyExists:
            # Left of an earlier container of this id: nothing of it may show in the new one.
            await self._remove_snapshot(container_id)
            reply = await self._connection.unary(method, request, api.MountsResponse)
        return reply.mounts

    async def create_task(
        self,
        container_id: str,
        mounts: Sequence[api.Mount],
        stdin: str,
        stdout: str,
        stderr: str,
        tty: bool,
        runtime: OciRuntime,
    ) -> int:
        """Makes the process, not yet running the user's program; returns its process id."""
        request = api.CreateTaskRequest(
            container_id=container_id,
            rootfs=mounts,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=tty,
            options=runtime.options,
        )
        reply = await self._connection.unary(
            "tasks.v1.Tasks/Create", request, api.CreateTaskResponse, timeout_ms=CREATE_TIMEOUT_MS
        )
        return reply.pid

    async def start(self, container_id: str, exec_id: str = "") -> int:
        request = api.StartRequest(container_id=container_id, exec_id=exec_id)
        return (await self._connection.unary("tasks.v1.Tasks/Start", request, api.StartResponse)).pid

    async def kill(self, container_id: str, number: int, *, exec_id: str = "", everything: bool = False) -> None:
        """Raises NotFound where nothing runs any more."""
        request = api.KillRequest(container_id=container_id, exec_id=exec_id, signal=number, all=everything)
        await self._connection.do("tasks.v1.Tasks/Kill", request)

    async def get_process(self, container_id: str) -> api.Process | None:
        """None where the container has no task."""
        request = api.GetTaskRequest(container_id=container_id)
        try:
            reply = await self._connection.unary("tasks.v1.Tasks/Get", request, api.GetTaskResponse)
            return self._known(reply.process)
        except NotFound:
            return None

    async def spec(self, container_id: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The OCI specification it was made from, and its labels."""
        request = api.GetContainerRequest(id=container_id)
        reply = await self._connection.unary("containers.v1.Containers/Get", request, api.GetContainerResponse)
        spec: dict[str, Any] = json.loads(reply.container.spec.value)
        return spec, dict(reply.container.labels)

    async def list(self) -> Sequence[ObservedContainer]:
        """All containers of the namespace; one without a task has lost it (power cut) and is stopped."""
        containers = await self._connection.unary(
            "containers.v1.Containers/List", api.ListContainersRequest(), api.ListContainersResponse
        )
        tasks = await self._connection.unary("tasks.v1.Tasks/List", api.ListTasksRequest(), api.ListTasksResponse)
        processes = {process.id or process.container_id: self._known(process) for process in tasks.tasks}
        return [self._observed(entry, processes.get(entry.id)) for entry in containers.containers]

    async def delete(self, container_id: str) -> None:
        """Kills what runs, removes task, container, snapshot and control groups; all may be gone already."""
        await self._delete_task(container_id)
        with suppress(NotFound):
            await self._connection.do("containers.v1.Containers/Delete", api.DeleteContainerRequest(id=container_id))
        await self._remove_snapshot(container_id)
        for _ in range(CGROUP_REMOVE_TRIES_MAX):
            if await trio.to_thread.run_sync(cgroup.remove, self._host, self._settings.cgroup_parent, container_id):
                break
            await trio.sleep(CGROUP_POLL_MS / 1000)
        else:
            log.warning("container %s: a control group cannot be removed", container_id)

    def killed_for_memory(self, container_id: str) -> bool:
        return cgroup.killed_for_memory(self._host, self._settings.cgroup_parent, container_id)

    async def _delete_task(self, container_id: str) -> None:
        request = api.DeleteTaskRequest(container_id=container_id)
        try:
            await self._connection.do("tasks.v1.Tasks/Delete", request)
            return
        except NotFound:
            return
        except RuntimeFailure as error:
            if not isinstance(error, NotPossible):
                log.debug("container %s is not deleted at once: %s", container_id, error)
        deadline = trio.current_time() + KILL_WAIT_MS_MAX / 1000
        wait_ms = KILL_POLL_MS_MIN
        while True:
            try:
                # The end of its first process ends all of a process id namespace.
                await self.kill(container_id, 9)
            except RuntimeFailure as error:
                log.debug("container %s: %s", container_id, error)
            await self._until_stopped(container_id, wait_ms)
            try:
                await self._connection.do("tasks.v1.Tasks/Delete", request)
                return
            except NotFound:
                return
            except RuntimeFailure:
                if trio.current_time() > deadline:
                    raise
            wait_ms = min(wait_ms * 2, KILL_POLL_MS_MAX)

    async def _until_stopped(self, container_id: str, wait_ms: int) -> None:
        """Waits for the end of the task, at most `wait_ms`; each kill costs a process, waiting does not."""
        request = api.WaitRequest(container_id=container_id)
        with suppress(RuntimeFailure):
            await self._connection.unary("tasks.v1.Tasks/Wait", request, api.WaitResponse, timeout_ms=wait_ms)

    async def _remove_snapshot(self, key: str) -> None:
        request = api.SnapshotKeyRequest(snapshotter=self._settings.snapshotter, key=key)
        try:
            await self._connection.do("snapshots.v1.Snapshots/Remove", request)
        except NotFound:
            return

    def _known(self, process: api.Process) -> api.Process:
        """containerd does not know the state of what a shim runs that does not answer; its control group tells."""
        status = api.Process.Status
        if process.status == status.UNKNOWN:
            groups = cgroup.Groups(self._host, self._settings.cgroup_parent)
            process.pid = cgroup.first_process(groups.of(process.id or process.container_id))
            process.status = status.RUNNING if process.pid else status.STOPPED
            process.exit_status = 0 if process.pid else EXIT_CODE_UNKNOWN
        return process

    def _observed(self, entry: api.Container, process: api.Process | None) -> ObservedContainer:
        labels = dict(entry.labels)
        started_ms = entry.created_at.ToMilliseconds()
        if process is None:
            return ObservedContainer(
                entry.id, labels, "stopped", exit_code=EXIT_CODE_UNKNOWN, started_unix_ms=started_ms
            )
        state = _STATES.get(process.status, "stopped")
        ended = state == "stopped"
        return ObservedContainer(
            entry.id,
            labels,
            state,
            0 if ended else process.pid,
            process.exit_status if ended else 0,
            self.killed_for_memory(entry.id),
            started_ms,
            process.exited_at.ToMilliseconds() if ended else 0,
        )
