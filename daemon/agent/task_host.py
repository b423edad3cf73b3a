"""Starts, watches, stops and removes the container of a task: image, volumes, network and files around it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from daemon.agent import task_files
from daemon.agent.attachments import GONE, Attachments
from daemon.agent.file_agent import FileAgent
from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.init_tasks import InitTasks
from daemon.agent.own_network import LOOPBACK, SELF, address_within, check_allowed, host_name, resolv_conf
from daemon.agent.shared_namespaces import joined_by, network_maker, wait_for_owner
from daemon.agent.task_hooks import TaskHooks
from daemon.agent.task_probes import TaskProbes
from daemon.agent.task_runner import Readiness, TaskFailure
from net.addresses import GATEWAY_ADDRESS
from net.errors import NetworkError
from net.network import Network
from net.task_connections import connect_within
from net.task_sockets import TaskSockets
from proto import objects_pb2 as objects
from runtime import oci_spec
from runtime.errors import AlreadyExists, NotFound, RuntimeFailure
from runtime.healthcheck import Check, HealthReport, effective, run_healthcheck
from runtime.model import BindMount, ContainerExit, ContainerRequest, ObservedContainer, TmpfsMount
from runtime.probes import AT_ONCE_MAX as PROBES_AT_ONCE_MAX
from runtime.probes import Way
from runtime.runtime import Runtime
from storage import mount_plan
from storage.errors import StorageFailure
from storage.population import populate
from storage.volumes import LocalVolumes, PreparedMount

logger = logging.getLogger(__name__)

STOP_GRACE_MS_DEFAULT = 10_000
AFTER_HOOKS_MS_MIN = 2_000  # of the grace period, however long the pre_stop hooks took
HOST_GATEWAY = "host-gateway"  # in extra_hosts: the host, whichever runs the task
LISTEN_POLL_S_MIN = 0.02
LISTEN_POLL_S_MAX = 0.5
IDLE_POLL_S = 0.1
ADMISSION_S_USUAL = 1.0
LINGER_S = 1.2  # a first packet that got lost on its way here comes again after one second (RFC 6298)
LINGER_ALONE_S = 0.3  # where nobody else serves, what is lost is lost
SHIMS_MAX = 4  # of one service on a host
LABEL_TASK = "fairway.task"
LABEL_SERVICE = "fairway.service"
LABEL_APP = "fairway.app"
LABEL_TENANT = "fairway.tenant"


class ContainerHost:
    """The real `TaskHost` (task_runner.py) of this machine."""

    def __init__(
        self,
        runtime: Runtime,
        network: Network,
        volumes: LocalVolumes,
        images: ImageAgent,
        secrets: FileAgent,
        view: HostView,
        run_folder: Path,
        withdrawn: Callable[[str], bool],
        changed: Callable[[], trio.Event],
        attachments: Attachments,
        host_network_allowed: bool,
    ) -> None:
        self._runtime = runtime
        self._network = network
        self._volumes = volumes
        self._images = images
        self._secrets = secrets
        self._view = view
        self._files_folder = run_folder / "tasks"
        self._attachments = attachments
        self._host_network_allowed = host_network_allowed
        self._hooks = TaskHooks(runtime, self._files_folder)
        self._init_tasks = InitTasks(runtime, images, view)
        self._probe_seats = trio.CapacityLimiter(PROBES_AT_ONCE_MAX)
        self.withdrawn = withdrawn
        self.changed = changed

    async def start(self, task: objects.Task, progress: Callable[[str], None]) -> int:
        """See TaskHost."""
        try:
            try:
                return await self._try_start(task, progress)
            except (NotFound, AlreadyExists):
                # The image has gone since it was looked for, or an earlier try left something half made.
                self._images.doubt(task.image_digest)
                await self._runtime.delete(task.meta.id)
                return await self._try_start(task, progress)
        except (RuntimeFailure, NetworkError, StorageFailure, OSError, TaskFailure) as error:
            self._attachments.failed(task.meta.id, str(error))
            raise TaskFailure(str(error)) from error

    async def _try_start(self, task: objects.Task, progress: Callable[[str], None]) -> int:
        await self._images.ensure(task.image_digest, task.spec.container.image, progress)
        await wait_for_owner(task, self._view, self._runtime, progress)
        request = await self._request(task)
        if task.spec.container.init_tasks:
            with self._runtime.log_held(task.meta.id):
                with trio.move_on_after(ADMISSION_S_USUAL):  # they may need others, as a migration does
                    await self._admitted(task)
                await self._init_tasks.run(task, request, progress)
                await self._runtime.create(request)
        else:
            await self._runtime.create(request)
        if task.spec.container.attached:
            await self._attachments.wait_attached(task.meta.id)
        return await self._runtime.start(task.meta.id)

    async def _request(self, task: objects.Task) -> ContainerRequest:
        spec = task.spec.container
        check_allowed(spec, self._host_network_allowed)
        hostname = host_name(spec, task.meta.id)
        namespace, names, gateway = None, "", LOOPBACK
        if task.spec.networks:
            async with network_maker(task, self._runtime) as make:
                namespace = await self._network.create_task_network(task.meta.id, task.address, make)
            names, gateway = self._network.resolv_conf(task.app, spec.dns_search, spec.dns_options), GATEWAY_ADDRESS
        files = task_files.write(
            self._files_folder / task.meta.id,
            names or resolv_conf(spec),
            hostname,
            task.address if task.spec.networks else SELF,
            [(each.name, gateway if each.address == HOST_GATEWAY else each.address) for each in spec.extra_hosts],
            spec.domainname,
        )
        return ContainerRequest(
            id=task.meta.id,
            image_digest=task.image_digest,
            spec=spec,
            resources=task.spec.resources,
            labels={
                LABEL_TASK: task.meta.name,
                LABEL_SERVICE: task.service,
                LABEL_APP: task.app,
                LABEL_TENANT: task.meta.tenant,
            },
            hostname=hostname,
            network_namespace=namespace,
            mounts=await self._mounts(task),
            files=(*files, *await self._secrets.prepare(task, self._files_folder / task.meta.id)),
            cdi_devices=tuple(f"{device.kind}={device.name}" for device in task.devices),
            shim_group=_shim_group(task),
            environment={},
            joined=joined_by(task),
        )

    async def _mounts(self, task: objects.Task) -> tuple[BindMount | TmpfsMount, ...]:
        """Volumes made ready; Docker's rule: a fresh volume begins with what the image has there."""
        config = await self._runtime.images.config(task.image_digest)
        needs = mount_plan.plan(task.spec.container.mounts, config.volumes)
        if not needs:
            return ()
        volume_ids = {volume.meta.name: volume.meta.id for volume in self._view.volumes if volume.app == task.app}
        volume_ids.update(task.spec.external_volumes)
        prepared = await self._volumes.prepare(task.meta.id, task.app, needs, volume_ids)
        fresh = [mount for mount in prepared if mount.wants_image_content]
        if fresh:
            await self._runtime.images.with_files(task.image_digest, lambda root: _populate(fresh, root))
        return tuple(
            TmpfsMount(mount.target, mount.tmpfs_size_bytes, mount.tmpfs_mode, mount.read_only)
            if mount.source is None
            else BindMount(mount.source, mount.target, mount.read_only, mount.identity)
            for mount in prepared
        )

    async def wait_ready(
        self, task: objects.Task, pid: int, known: Readiness, report: Callable[[Readiness], None]
    ) -> None:
        """See TaskHost."""
        if task.spec.container.attached:
            await self._attachments.wait_gone(task.meta.id)
            if task.spec.container.tty:  # as of a terminal that is closed
                with contextlib.suppress(RuntimeFailure):
                    await self._runtime.signal(task.meta.id, "HUP")
            report(Readiness(False, message=GONE))
            return
        if task.spec.container.post_start and not known.ready:
            report(Readiness(False, message="running; its post_start hooks have not ended yet"))
            if problem := await self._hooks.post_start(task):
                report(Readiness(False, message=problem))
                return
        config = await self._runtime.images.config(task.image_digest)
        own = task.spec.container.healthcheck if task.spec.container.HasField("healthcheck") else None
        check = effective(own, config.healthcheck)
        if task.spec.container.HasField("probes"):
            await self._watch_probes(task, pid, check, known, report)
            return
        if not known.ready:
            await self._wait_listening(task, pid, report)
            await self._wait_admitted(task, report)
        if check is not None:
            await self._wait_unhealthy(task.meta.id, check, known, report)
            return
        report(Readiness(ready=True))
        await trio.sleep_forever()

    async def _watch_probes(
        self, task: objects.Task, pid: int, check: Check | None, known: Readiness, report: Callable[[Readiness], None]
    ) -> None:
        async def connect(port: int) -> trio.abc.Stream:
            try:
                return await connect_within(pid, address_within(task), port)
            except NetworkError as error:
                raise OSError(f"the task's network is not there: {error}") from error

        async def execute(command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
            return await self._runtime.run_check(task.meta.id, command, timeout_ms)

        async def reachable(tell: Callable[[Readiness], None]) -> None:
            await self._wait_listening(task, pid, tell)
            await self._wait_admitted(task, tell)

        way = Way(address_within(task), connect, execute, self._probe_seats)
        await TaskProbes(task.spec.container.probes, check, way, known, report).run(reachable)

    async def _wait_unhealthy(
        self, task_id: str, check: Check, known: Readiness, report: Callable[[Readiness], None]
    ) -> None:
        failed = trio.Event()

        def note(health: HealthReport) -> None:
            words = f"unhealthy: {health.message}" if health.message else ""
            if health.health == objects.HEALTH_STARTING:
                words = words or "running; its health check has not passed yet"
            report(Readiness(health.health == objects.HEALTH_HEALTHY, health.health, words))
            if health.health == objects.HEALTH_UNHEALTHY:
                failed.set()

        async def probe(command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
            return await self._runtime.run_check(task_id, command, timeout_ms)

        async with trio.open_nursery() as nursery:
            # One that was healthy when the daemon before this one ended stays so until a probe says otherwise.
            before = objects.HEALTH_HEALTHY if known.ready else objects.HEALTH_STARTING
            nursery.start_soon(run_healthcheck, check, probe, note, before)
            await failed.wait()
            nursery.cancel_scope.cancel()

    async def _wait_listening(self, task: objects.Task, pid: int, report: Callable[[Readiness], None]) -> None:
        """Until something listens on every TCP port that the service declares: no request finds it closed."""
        wanted = {port.target for port in task.spec.ports if port.protocol == "tcp"}
        if not wanted:
            return
        poll_s = LISTEN_POLL_S_MIN
        with await TaskSockets.of_process(pid) as sockets:
            while missing := wanted - sockets.listening():
                ports = ", ".join(map(str, sorted(missing)))
                report(Readiness(False, message=f"running; nothing listens on port {ports} yet"))
                await trio.sleep(poll_s)
                poll_s = min(poll_s * 1.5, LISTEN_POLL_S_MAX)

    async def _wait_admitted(self, task: objects.Task, report: Callable[[Readiness], None]) -> None:
        """Until this host's rules let others reach it: else one that hears of it first would be refused."""
        with trio.move_on_after(ADMISSION_S_USUAL) as usual:
            await self._admitted(task)
        if not usual.cancelled_caught:
            return
        report(Readiness(False, message="running; this host's rules do not let anybody reach it yet"))
        await self._admitted(task)

    async def _admitted(self, task: objects.Task) -> None:
        if task.spec.networks:
            await self._network.admitted(task.meta.id)

    def linger_s(self, task: objects.Task) -> float:
        """See TaskHost."""
        if not task.spec.networks:
            return 0.0
        return LINGER_S if self._network.serves(task.service_id) else LINGER_ALONE_S

    async def wait_idle(self, task: objects.Task, pid: int) -> None:
        """See TaskHost."""
        if not task.spec.networks:
            return  # the sockets there may be the whole host's
        with await TaskSockets.of_process(pid) as sockets:
            while await trio.to_thread.run_sync(sockets.connected):  # noqa: ASYNC110 nothing tells of it
                await trio.sleep(IDLE_POLL_S)

    async def stop(self, task: objects.Task) -> ObservedContainer | None:
        """See TaskHost."""
        spec = task.spec.container
        grace_ms = spec.stop_grace_ms or STOP_GRACE_MS_DEFAULT
        left_ms = max(grace_ms - await self._hooks.pre_stop(task, grace_ms), min(grace_ms, AFTER_HOOKS_MS_MIN))
        try:
            exit = await self._runtime.stop(task.meta.id, await self._stop_signal(task), left_ms)
        except NotFound:
            return None
        return ended(task.meta.id, exit)

    async def _stop_signal(self, task: objects.Task) -> int | str:
        """The service's own, else the image's, else SIGTERM."""
        spec = task.spec.container
        try:
            return oci_spec.stop_signal(spec, await self._runtime.images.config(task.image_digest))
        except RuntimeFailure as error:  # an image that was removed meanwhile must not keep its task
            logger.warning("task %s: its image does not tell its stop signal: %s", task.meta.name, error)
            return spec.stop_signal

    async def clean_up(self, task: objects.Task) -> None:
        """See TaskHost."""
        await self._runtime.delete(task.meta.id)
        await self._init_tasks.remove(task)
        await self._network.delete_task_network(task.meta.id)
        await self._volumes.remove_anonymous(task.meta.id)
        task_files.remove(self._files_folder / task.meta.id)
        self._secrets.remove(task.meta.id)
        self._attachments.forget(task.meta.id)


def _shim_group(task: objects.Task) -> str:
    """One shim serves several tasks of a service, which saves a process each; it makes them one after the other, so
    there are as many as are made at a time. A version with another isolation does not share with the one before."""
    isolation = task.spec.container.isolation
    parts = [task.meta.tenant, task.app, task.service, str(task.slot % SHIMS_MAX), isolation.runtime]
    return "-".join([*filter(None, parts), *(["user"] if isolation.user_namespace else [])])


def _populate(mounts: Sequence[PreparedMount], root: Path) -> None:
    for mount in mounts:
        assert mount.source is not None
        populate(mount.source, root, mount.target)


def ended(container_id: str, exit: ContainerExit) -> ObservedContainer:
    """A container that has ended, as an observation."""
    return ObservedContainer(
        container_id,
        {},
        "stopped",
        exit_code=exit.exit_code,
        out_of_memory=exit.out_of_memory,
        finished_unix_ms=exit.unix_ms,
    )
