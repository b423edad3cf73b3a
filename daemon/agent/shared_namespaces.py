"""What of another task of this host a task is to share, and waiting until that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from daemon.agent.host_view import HostView
from daemon.agent.task_runner import TaskFailure
from daemon.orchestration.sharing import owner_name, shared_words
from proto import objects_pb2 as objects
from runtime import joining
from runtime.errors import NotFound
from runtime.model import Joins
from runtime.runtime import Runtime

WAIT_S_MAX = 60.0  # it runs already where this host is told to start the other one
LOOK_S = 0.1


def joined_by(task: objects.Task) -> Joins | None:
    """None: its namespaces are its own."""
    sharing = task.spec.container.sharing
    if not task.shares_with:
        return None
    wanted = (
        (joining.PROCESSES, sharing.processes),
        (joining.IPC, sharing.ipc),
        (joining.USERS, task.spec.container.isolation.user_namespace),  # which has the say over the others
    )
    return Joins(task.shares_with, tuple(kind for kind, said in wanted if said))


@asynccontextmanager
async def network_maker(task: objects.Task, runtime: Runtime) -> AsyncIterator[Callable[[Path], None] | None]:
    """What makes its network namespace; None: any may be its own. Raises RuntimeFailure."""
    if not task.shares_with or not task.spec.container.isolation.user_namespace:
        yield runtime.network_maker(task.spec.container)
        return
    async with joining.network_maker(task.shares_with, runtime.first_process) as make:
        yield make


async def wait_for_owner(task: objects.Task, view: HostView, runtime: Runtime, progress: Callable[[str], None]) -> None:
    """Until the task whose namespaces it is to share runs. Raises TaskFailure, RuntimeFailure."""
    if not task.shares_with:
        return
    name = f"{owner_name(task.spec)}.{task.slot}, whose {shared_words(task.spec)} it shares"
    with trio.move_on_after(WAIT_S_MAX):
        while True:
            try:
                await runtime.first_process(task.shares_with)
                return
            except NotFound as error:
                if all(other.meta.id != task.shares_with for other in view.tasks):
                    raise TaskFailure(f"{name}, is not on this host any more") from error
            progress(f"waits until {name}, runs")
            await trio.sleep(LOOK_S)
    raise TaskFailure(f"{name}, did not run within {WAIT_S_MAX:.0f} s")
