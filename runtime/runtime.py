"""The container runtime of this host: what the daemon's agent calls.

`run` keeps the connection to containerd; everything else may be called once it has started, waits a
little for a containerd that restarts, and raises one of runtime/errors.py.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from proto import containerd_pb2 as api
from proto import objects_pb2
from runtime import (
    cdi_edits,
    cgroup,
    devices,
    features,
    joining,
    log_policy,
    mounted,
    oci_runtimes,
    oci_spec,
    process_spec,
    signals,
)
from runtime.accounts import Accounts
from runtime.attaching import AttachSession
from runtime.cdi_folders import CdiFolders
from runtime.cdi_model import CdiEdits
from runtime.connection import Connection
from runtime.containers import Containers
from runtime.errors import MissingFeature, NotFound, RuntimeFailure, TimedOut, Unavailable
from runtime.events import EventFan, Subscription, decode
from runtime.execution import ExecSession, ProcessRequest
from runtime.fifo_keeper import FifoKeeper
from runtime.image_model import host_architecture
from runtime.image_space import ImageSpaces
from runtime.images import ImageStore
from runtime.left_sessions import end_left, left_behind
from runtime.log_choice import ALL, LogChoice
from runtime.logs import LogLines, TaskLogs
from runtime.model import (
    EXIT_CODE_UNKNOWN,
    ContainerEvent,
    ContainerExit,
    ContainerRequest,
    EventKind,
    ObservedContainer,
    RuntimeSettings,
)
from runtime.user_namespaces import Stage, Staging

log = logging.getLogger(__name__)

CHECK_OUTPUT_BYTES_MAX = 4096
KILL_WAIT_MS_MAX = 10_000
START_TIMES_MAX = 4096
IMAGE_LABEL = "fairway/image-digest"


class Runtime:
    """One per host. `images` is the host's ImageStore."""

    def __init__(self, settings: RuntimeSettings, keeper: FifoKeeper | None = None) -> None:
        self._settings = settings
        self._keeper = keeper
        self._cgroup = cgroup.detect()
        self._connection = Connection(settings.socket, settings.namespace)
        self._containers = Containers(self._connection, settings, self._cgroup)
        self.cdi = CdiFolders(settings.cdi_folders)
        self.images = ImageStore(self._connection, settings.snapshotter, settings.run_folder / "work")
        self.spaces = ImageSpaces(self._connection, self.images, settings.snapshotter)
        self._fan = EventFan()
        self._nursery: trio.Nursery | None = None
        self.logs: TaskLogs | None = None  # until it runs
        self._starting = trio.CapacityLimiter(settings.parallel_starts_max)
        self._deleting = trio.CapacityLimiter(settings.parallel_starts_max)
        self._making: set[str] = set()
        self._out_of_memory: set[str] = set()
        self._started_ms: OrderedDict[str, int] = OrderedDict()
        self._accounts = Accounts(self.images)
        self._staging = Staging(settings.user_ids_first, settings.run_folder / "staged")
        init_path = settings.init_path if settings.init_path.is_file() else None
        self._host = oci_spec.HostFacts(
            architecture=host_architecture(),
            cgroup=self._cgroup,
            cgroup_parent=settings.cgroup_parent,
            capabilities=features.bounding_capabilities(),
            seccomp=features.has_seccomp(),
            apparmor=features.has_apparmor(),
            init_path=init_path,
        )

    @property
    def healthy(self) -> bool:
        return self._connection.healthy

    @property
    def error(self) -> str:
        """Why it is not healthy; empty when all is well."""
        return self._connection.error

    @property
    def version(self) -> str:
        """containerd's, once it has answered."""
        return self._connection.version

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; containers go on after it. Reports started at once, connected or not."""
        for folder in (self._settings.run_folder, self._settings.log_folder, self._settings.runc_root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await trio.to_thread.run_sync(self._staging.clear)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.logs = TaskLogs(self._settings, nursery, self._keeper)
            nursery.start_soon(self._connection.run, self._on_event, self._on_connected)
            nursery.start_soon(end_left, self._connection, left_behind(self._settings.run_folder / "exec"))
            task_status.started()

    def network_maker(self, spec: objects_pb2.ContainerSpec) -> Callable[[Path], None] | None:
        """What makes the network namespace of such a container and mounts it on a file; None: any may be its own."""
        return self._staging.make_network if spec.isolation.user_namespace else None

    async def wait_changed(self) -> None:
        """Returns when `healthy` has changed."""
        await self._connection.wait_changed()

    async def wait_healthy(self) -> None:
        """Returns once containerd answers; waits without limit."""
        await self._connection.wait_healthy()

    def subscribe(self) -> Subscription:
        """An async iterator of ContainerEvent. It begins with RESYNC, and RESYNC comes again whenever
        events may have been lost: after a reconnection, and when its bounded queue overflows."""
        return self._fan.subscribe()

    async def create(self, request: ContainerRequest) -> None:
        """Makes the container and its process, which waits for `start`; reads its output from now on.

        Raises InvalidRequest, NotFound (no such image), AlreadyExists, CannotStart, NoSpace, Unavailable;
        then nothing of it is left.
        """
        spec = request.spec
        if spec.init and self._host.init_path is None:
            raise MissingFeature(
                f"init: true needs {self._settings.init_path}, which this host does not have: install tini"
            )
        image = await self.images.config(request.image_digest)
        user = await self._accounts.resolve(request.image_digest, spec.user or image.user, spec.group_add)
        if spec.devices:
            found = await trio.to_thread.run_sync(devices.resolve, spec.devices, self._settings.allowed_devices)
            request = dataclasses.replace(request, devices=found)
        held = joining.held(request, self._settings.run_folder / "staged", self.first_process)
        async with held as joined, self._staging.staged(request) as (staged, stage), self._starting:
            oci = joined.applied(oci_spec.build(staged, image, user, self._host))
            if request.cdi_devices:
                cdi_edits.apply(oci, await trio.to_thread.run_sync(self._edits, request.cdi_devices))
            self._making.add(request.id)
            try:
                await self._create(joined.checked(staged), oci, stage)
            finally:
                self._making.discard(request.id)

    def _edits(self, names: Sequence[str]) -> CdiEdits:
        return cdi_edits.filled(self.cdi.look().edits_of(names, self.cdi.folders))

    @contextmanager
    def log_held(self, task_id: str) -> Iterator[None]:
        """While several containers of a task come one after the other: its log goes on in between."""
        self._task_logs().hold(task_id)
        try:
            yield
        finally:
            self._task_logs().release(task_id)

    async def start(self, container_id: str) -> int:
        """Lets the process run; returns its process id. Raises CannotStart where its program is missing."""
        async with self._starting:
            process_id = await self._containers.start(container_id)
        self._started_ms[container_id] = time.time_ns() // 1_000_000
        if len(self._started_ms) > START_TIMES_MAX:
            self._started_ms.popitem(last=False)
        return process_id

    async def signal(self, container_id: str, name_or_number: str | int) -> None:
        """To the container's first process. Raises NotFound where nothing runs."""
        await self._containers.kill(container_id, signals.number_of(name_or_number))

    async def first_process(self, container_id: str) -> int:
        """Id on the host of a running container's first process. Raises NotFound where it does not run."""
        process = await self._containers.get_process(container_id)
        if process is None or process.status not in (api.Process.Status.RUNNING, api.Process.Status.PAUSED):
            raise NotFound(f"container {container_id} does not run")
        return process.pid

    @property
    def groups(self) -> cgroup.Groups:
        """Where the control groups of its containers are."""
        return cgroup.Groups(self._cgroup, self._settings.cgroup_parent)

    async def stop(self, container_id: str, signal: str | int, grace_ms: int) -> ContainerExit:
        """Asks by `signal` ("": SIGTERM), waits at most `grace_ms`, then kills and waits for the end."""
        number = signals.number_of(signal or "SIGTERM")
        try:
            await self._containers.kill(container_id, number)
        except NotFound:
            return await self.wait(container_id)
        with trio.move_on_after(max(0, grace_ms) / 1000):
            return await self.wait(container_id)
        try:
            await self._containers.kill(container_id, 9, everything=True)
        except NotFound:
            log.debug("container %s ended by itself", container_id)
        with trio.move_on_after(KILL_WAIT_MS_MAX / 1000):
            return await self.wait(container_id)
        raise TimedOut(f"container {container_id} does not end {KILL_WAIT_MS_MAX} ms after SIGKILL")

    async def wait(self, container_id: str) -> ContainerExit:
        """Until the container has ended. Raises NotFound where there is no such task."""
        async for event in self._fan.subscribe():
            if event.kind is EventKind.RESYNC:
                try:
                    process = await self._containers.get_process(container_id)
                except Unavailable:
                    continue  # a RESYNC follows the next connection
                if process is None:
                    raise NotFound(f"container {container_id} has no task")
                if process.status == api.Process.Status.STOPPED:
                    return self._exit(container_id, process.exit_status, process.exited_at.ToMilliseconds())
            elif event.kind is EventKind.EXIT and event.container_id == container_id:
                return self._exit(container_id, event.exit_code, event.unix_ms)
        raise AssertionError("subscriptions do not end")

    async def delete(self, container_id: str) -> None:
        """Removes all of a container but its log, from any half-made state; kills it if it runs.

        What is gone already is fine. May be repeated.
        """
        async with self._deleting:
            await self._containers.delete(container_id)
        await self._task_logs().detach(container_id)
        self._out_of_memory.discard(container_id)
        self._started_ms.pop(container_id, None)

    async def list(self) -> Sequence[ObservedContainer]:
        """All containers there are; running ones whose output nobody reads yet are read from now on."""
        found = []
        for container in await self._containers.list():
            if container.state in ("running", "created", "paused") and container.pid:
                self._attach(container)
            elif container.state == "stopped" and container.id not in self._making:
                self._recover_log(container)
            found.append(self._completed(container))
        self._task_logs().settle({container.id for container in found})
        return found

    async def exec(
        self,
        container_id: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        user: str = "",
        working_dir: str = "",
        tty: bool = False,
        stdin: bool = False,
    ) -> ExecSession:
        """Starts a process in the container, as its own user in its own folder unless said otherwise.

        The session must be closed (`async with await runtime.exec(...) as session`). Raises CannotStart,
        NotFound, InvalidRequest.
        """
        spec, labels = await self._containers.spec(container_id)
        resolved = None
        if user:
            resolved = await self._accounts.resolve(labels.get(IMAGE_LABEL, ""), user)
        process = process_spec.for_exec(spec["process"], command, environment or {}, resolved, working_dir, tty)
        return await self._exec(ProcessRequest(container_id, process, tty, stdin))

    def attach(self, container_id: str, *, visiting: bool = False) -> AttachSession:
        """The container's own process, made and perhaps not started. To be closed; raises NotFound."""
        session = AttachSession(self._connection, self._containers, self._task_logs(), container_id, visiting=visiting)
        assert self._nursery is not None  # or there were no logs
        session.start(self._nursery, self.wait)
        return session

    async def run_check(self, container_id: str, command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
        """(exit code, first 4 KiB of its output) of a short process; raises TimedOut, having killed it, and Unavailable
        where that was not its own fault."""
        output = b""
        with trio.move_on_after(timeout_ms / 1000):
            spec, _ = await self._containers.spec(container_id)
            process = process_spec.for_exec(spec["process"], command, {}, None, "", tty=False)
            session = await self._exec(ProcessRequest(container_id, process, tty=False, stdin=False, merge_output=True))
            async with session:
                async for _, data in session.outputs():
                    output += data[: CHECK_OUTPUT_BYTES_MAX - len(output)]
                return await session.wait(), output
        if not await self._connection.answers():
            raise Unavailable(f"containerd does not answer: {self.error or 'it is slow'}")
        raise TimedOut(f"the command {list(command)} did not end within {timeout_ms} ms")

    def read_log(self, container_id: str, follow: bool = False, choice: LogChoice = ALL) -> LogLines:
        """An async iterator of proto LogLine, oldest first; `follow`: until the task has ended, or the choice's end.
        Raises NotFound where there is no log."""
        return self._task_logs().read(container_id, follow, choice)

    async def logged_ids(self) -> Sequence[str]:
        """Containers that have a log here, also those that are long gone."""
        return await self._task_logs().ids()

    async def remove_logs(self, container_id: str) -> None:
        """Harmless where there are none."""
        await self._task_logs().remove(container_id)

    async def _create(self, request: ContainerRequest, oci: dict[str, Any], stage: Stage | None) -> None:
        logs = self._task_logs()
        spec, tty = request.spec, request.spec.tty
        labels = {**request.labels, IMAGE_LABEL: request.image_digest, **log_policy.labels(spec, self._settings)}
        owner = stage.first if stage is not None else 0
        runtime = oci_runtimes.find(spec.isolation.runtime, self._settings.runtimes, self._settings.runc_root, owner)
        if stage is not None:
            stage.apply(oci, request.network_namespace)
        await self._containers.create(request.id, labels, request.spec.image, oci, runtime)
        try:
            mounts = await self._prepare(request)
            if stage is not None:
                mounts = await trio.to_thread.run_sync(stage.root, mounts)
            logs.attach(request.id, running=False, tty=tty, policy=log_policy.policy_of(request.spec, self._settings))
            logs.ship(request)
            stdin = logs.make_stdin(request.id) if request.spec.stdin_open else ""
            stdout, stderr = logs.fifo_paths(request.id, tty)
            process_id = await self._containers.create_task(
                request.id, mounts, stdin, str(stdout), str(stderr) if stderr else "", tty, runtime
            )
            mounted.verify(process_id, request.mounts)
        except BaseException:
            with trio.move_on_after(KILL_WAIT_MS_MAX / 1000, shield=True):
                await self._undo(request.id)
            raise

    async def _prepare(self, request: ContainerRequest) -> Sequence[api.Mount]:
        """The root file system. Nearly always the image is unpacked already, so it is looked at only where not."""
        try:
            return await self._containers.prepare(request.id, await self.images.top_snapshot(request.image_digest))
        except NotFound:
            return await self._containers.prepare(request.id, await self.images.unpack(request.image_digest))

    async def _undo(self, container_id: str) -> None:
        with suppress(RuntimeFailure):  # usually there is no process yet
            # Deleting one that was made and never ran, the shim waits 2 s for the end of its output.
            await self._containers.kill(container_id, 9)
        try:
            await self._containers.delete(container_id)
        except RuntimeFailure as error:
            log.warning("container %s is left half made: %s", container_id, error)
        await self._task_logs().detach(container_id, drain=False)

    async def _exec(self, request: ProcessRequest) -> ExecSession:
        if self._nursery is None:
            raise Unavailable("the container runtime is not running")
        return await ExecSession(self._connection, self._containers, self._settings, request).start(self._nursery)

    def _attach(self, container: ObservedContainer) -> None:
        policy = log_policy.from_labels(container.labels, self._settings)
        try:
            self._task_logs().attach(container.id, running=True, policy=policy)
        except OSError as error:
            log.warning("log of task %s cannot be read: %s", container.id, error)

    def _recover_log(self, container: ObservedContainer) -> None:
        policy = log_policy.from_labels(container.labels, self._settings)
        try:
            self._task_logs().recover(container.id, policy)
        except OSError as error:
            log.warning("log of task %s is not complete: %s", container.id, error)

    def _task_logs(self) -> TaskLogs:
        if self.logs is None:
            raise Unavailable("the container runtime is not running")
        return self.logs

    def _on_event(self, envelope: api.Envelope) -> None:
        event = decode(envelope)
        if event is None:
            return
        if event.kind is EventKind.OOM:
            self._out_of_memory.add(event.container_id)
        elif event.kind is EventKind.EXIT:
            self._task_logs().expect_end(event.container_id)
        self._fan.push(event)

    def _on_connected(self) -> None:
        self._fan.push(ContainerEvent(EventKind.RESYNC))

    def _exit(self, container_id: str, exit_code: int, unix_ms: int) -> ContainerExit:
        self._task_logs().expect_end(container_id)
        out_of_memory = container_id in self._out_of_memory or self._containers.killed_for_memory(container_id)
        return ContainerExit(exit_code, unix_ms, out_of_memory)

    def _completed(self, seen: ObservedContainer) -> ObservedContainer:
        state = seen.state
        if state == "stopped" and seen.exit_code == EXIT_CODE_UNKNOWN and seen.id in self._making:
            state = "created"
        return dataclasses.replace(
            seen,
            state=state,
            exit_code=0 if state == "created" else seen.exit_code,
            out_of_memory=seen.out_of_memory or seen.id in self._out_of_memory,
            started_unix_ms=self._started_ms.get(seen.id, seen.started_unix_ms),
        )
