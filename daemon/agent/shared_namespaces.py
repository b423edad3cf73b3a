"""What of another task of this host a task is to share, and waiting until that runs."""

from __future__ import annotations

from collections.abc import Callable

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
    kinds = [joining.PROCESSES] if sharing.processes else []
    return Joins(task.shares_with, (*kinds, *([joining.IPC] if sharing.ipc else [])))


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
