"""Toolbox containers beside tasks of this host: each shares the network, processes and IPC of one, and nothing else.

They belong to who asked for them, are no tasks of the cluster, and end with that client, with the task, or where a
daemon of this host begins anew. The agent leaves what has LABEL_DEBUG to this module.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import trio

from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.task_files import NAMES
from daemon.agent.task_host import LABEL_APP, LABEL_TASK
from daemon.agent.task_runner import TaskFailure
from daemon.doctor.host_facts import memory_bytes
from daemon.errors import Kind, Refused
from proto import objects_pb2 as objects
from proto.host_pb2 import ExecStart
from runtime import joining
from runtime.errors import NotFound, RuntimeFailure
from runtime.model import BindMount, ContainerRequest, Joins
from runtime.runtime import Runtime

logger = logging.getLogger(__name__)

LABEL_DEBUG = "fairway.debug"  # the id of the task
AT_ONCE_MAX = 8
MEMORY_BYTES_MAX = 256 << 20  # of one
SPARE_BYTES_MIN = 128 << 20  # of the host's memory, beside that
IMAGE_NEWS_S_MAX = 10.0  # the host may have yet to hear of an image that has just been pulled
LOOK_S = 0.1
CLEAN_INTERVAL_S = 60.0
REMOVE_S_MAX = 30.0


class DebugContainers:
    def __init__(self, runtime: Runtime, images: ImageAgent, view: HostView, files_folder: Path) -> None:
        """`files_folder` has the small files of tasks (task_files.py)."""
        self.runtime = runtime
        self._images = images
        self._view = view
        self._files_folder = files_folder
        self._open: set[str] = set()

    async def run(self) -> None:
        """Removes those that nobody has any more, of an earlier daemon above all. Until cancelled."""
        while True:
            try:
                for container in await self.runtime.list():
                    if LABEL_DEBUG in container.labels and container.id not in self._open:
                        logger.info("removing container %s: whoever debugged has gone", container.id)
                        await self.runtime.delete(container.id)
            except RuntimeFailure as error:
                logger.warning("containers for debugging are not looked at: %s", error)
            await trio.sleep(CLEAN_INTERVAL_S)

    async def make(self, start: ExecStart, progress: Callable[[str], None]) -> str:
        """The id of a container that waits to be started; to be given to `remove`. Raises Refused, RuntimeFailure."""
        if len(self._open) >= AT_ONCE_MAX:
            raise Refused(f"{AT_ONCE_MAX} tasks of this host are being debugged already", Kind.EXHAUSTED)
        available_bytes, _ = await trio.to_thread.run_sync(memory_bytes)
        if available_bytes < MEMORY_BYTES_MAX + SPARE_BYTES_MIN:
            raise Refused(
                f"the host of the task has only {available_bytes >> 20} MiB of memory left; a container for debugging "
                f"may take {MEMORY_BYTES_MAX >> 20} MiB, and {SPARE_BYTES_MIN >> 20} MiB are kept free",
                Kind.EXHAUSTED,
            )
        container_id = f"debug-{random.getrandbits(64):016x}"
        self._open.add(container_id)
        try:
            await self._make(container_id, start, progress)
        except BaseException:
            await self.remove(container_id)
            raise
        return container_id

    async def remove(self, container_id: str) -> None:
        """Kills what runs in it; safe to repeat or cancel. What cannot be removed now is later."""
        with trio.move_on_after(REMOVE_S_MAX, shield=True):
            try:
                await self.runtime.delete(container_id)
            except RuntimeFailure as error:
                logger.warning("container %s: %s", container_id, error)
        self._open.discard(container_id)

    async def _make(self, container_id: str, start: ExecStart, progress: Callable[[str], None]) -> None:
        task = next((each for each in self._view.tasks if each.meta.id == start.task_id), None)
        if task is None:
            raise Refused("the task is not on its host any more", Kind.NOT_FOUND)
        try:
            await self.runtime.first_process(task.meta.id)
        except NotFound as error:
            raise Refused("the task does not run on its host any more", Kind.NOT_FOUND) from error
        await self._wait_known(start.debug.image_digest)
        try:
            await self._images.ensure(start.debug.image_digest, start.debug.image, progress)
        except TaskFailure as failure:
            raise Refused(str(failure), Kind.NOT_POSSIBLE) from failure
        await self.runtime.create(
            ContainerRequest(
                id=container_id,
                image_digest=start.debug.image_digest,
                spec=spec_of(start),
                resources=objects.Resources(memory_limit_bytes=MEMORY_BYTES_MAX),
                labels={LABEL_DEBUG: task.meta.id, LABEL_TASK: task.meta.name, LABEL_APP: task.app},
                hostname=task.spec.container.hostname or task.meta.id[:12],
                files=self._files(task.meta.id),
                joined=Joins(task.meta.id, joining.ALL),
            )
        )

    async def _wait_known(self, digest: str) -> None:
        with trio.move_on_after(IMAGE_NEWS_S_MAX):
            while all(image.manifest_digest != digest for image in self._view.images):  # noqa: ASYNC110
                await trio.sleep(LOOK_S)

    def _files(self, task_id: str) -> tuple[BindMount, ...]:
        """The task's names and name servers; not its host name's file, which is as good as any."""
        folder = self._files_folder / task_id
        return tuple(BindMount(folder / name, f"/etc/{name}") for name in NAMES if (folder / name).is_file())


def spec_of(start: ExecStart) -> objects.ContainerSpec:
    """What runs in it: the command that was asked for, or else the image's; as root, and able to look at the task's
    processes (ptrace(2)), its files by /proc/1/root among that. Pure."""
    spec = objects.ContainerSpec(
        image=start.debug.image,
        tty=start.tty,
        stdin_open=start.stdin,
        user=start.user or "0",
        working_dir=start.working_dir,
        environment=dict(start.environment),
        cap_add=["SYS_PTRACE"],
        logging=objects.Logging(driver=objects.Logging.DRIVER_NONE),
    )
    if start.command:
        spec.entrypoint.values.extend(start.command)
    return spec
