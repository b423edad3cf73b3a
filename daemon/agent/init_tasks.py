"""Init tasks: containers that run to their end, one after the other, before that of a task, with what it has.

They have its mounts, network, limits, and log. Where the daemon ends in between, all of them run again from the first,
as they do when the task is tried again: they must be able to bear that.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import trio

from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.task_runner import TaskFailure
from proto import objects_pb2 as objects
from runtime import log_ids
from runtime.errors import NotFound, RuntimeFailure
from runtime.model import ContainerExit, ContainerRequest
from runtime.references import normalise_reference
from runtime.runtime import Runtime

logger = logging.getLogger(__name__)

LABEL_INIT = "fairway.init"  # number, from 1


class InitTasks:
    def __init__(self, runtime: Runtime, images: ImageAgent, view: HostView) -> None:
        self._runtime = runtime
        self._images = images
        self._view = view

    async def run(self, task: objects.Task, request: ContainerRequest, progress: Callable[[str], None]) -> None:
        """Returns when all have succeeded; `request` is that of the task. Raises TaskFailure, RuntimeFailure."""
        await self.remove(task)  # what an earlier daemon has left
        wanted = task.spec.container.init_tasks
        for number, init in enumerate(wanted, 1):
            image = init.image or task.spec.container.image
            name = f"init task {number} of {len(wanted)} ({image})"
            digest = self._digest(task, init, name)
            await self._images.ensure(digest, image, progress)
            progress(f"{name} runs")
            own = dataclasses.replace(
                request,
                id=log_ids.of_init(task.meta.id, number),
                image_digest=digest,
                spec=spec_of(task.spec.container, init),
                labels={**request.labels, LABEL_INIT: str(number)},
            )
            ended = await self._run_one(own, request.spec.stop_grace_ms)
            if ended.out_of_memory:
                raise TaskFailure(f"{name} ran out of memory: it used more than the memory limit")
            if ended.exit_code != 0:
                raise TaskFailure(f"{name} ended with exit code {ended.exit_code}; fairway logs has what it said")

    async def remove(self, task: objects.Task) -> None:
        """What is not there is fine."""
        for number in range(1, len(task.spec.container.init_tasks) + 1):
            await self._runtime.delete(log_ids.of_init(task.meta.id, number))

    async def _run_one(self, request: ContainerRequest, grace_ms: int) -> ContainerExit:
        try:
            await self._runtime.create(request)
            await self._runtime.start(request.id)
            return await self._runtime.wait(request.id)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._stop(request.id, grace_ms)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._delete(request.id)

    async def _stop(self, container_id: str, grace_ms: int) -> None:
        try:
            await self._runtime.stop(container_id, "SIGTERM", grace_ms)
        except NotFound:
            return  # it has not begun
        except RuntimeFailure as error:
            logger.warning("container %s: %s", container_id, error)

    async def _delete(self, container_id: str) -> None:
        try:
            await self._runtime.delete(container_id)
        except RuntimeFailure as error:  # what is left goes with the task
            logger.warning("container %s: %s", container_id, error)

    def _digest(self, task: objects.Task, init: objects.InitTask, name: str) -> str:
        if not init.image:
            return task.image_digest
        if init.image_digest:
            return init.image_digest
        wanted = normalise_reference(init.image)
        for image in self._view.images:
            if image.meta.name == wanted:
                return image.manifest_digest
        raise TaskFailure(f"{name}: its image is not in the cluster: load it with `fairway image load FILE`")


def spec_of(container: objects.ContainerSpec, init: objects.InitTask) -> objects.ContainerSpec:
    """The container's settings with another program."""
    spec = objects.ContainerSpec()
    spec.CopyFrom(container)
    for name in ("entrypoint", "command", "tty", "stdin_open"):
        spec.ClearField(name)
    if init.HasField("entrypoint"):
        spec.entrypoint.CopyFrom(init.entrypoint)
    if init.HasField("command"):
        spec.command.CopyFrom(init.command)
    if init.image:  # what is said of the user and the folder is said of the container's image
        spec.image, spec.user, spec.working_dir = init.image, "", ""
    spec.user = init.user or spec.user
    spec.working_dir = init.working_dir or spec.working_dir
    spec.environment.update(init.environment)
    return spec
