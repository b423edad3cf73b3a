"""Who ran a task and is at its terminal: its start waits for them, and it ends when they go.

So nothing that a task writes is missed, and a client that is killed leaves no task behind. Nothing of it is kept: after
a restart of the daemon nobody is attached to anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from daemon.agent.task_runner import TaskFailure

ATTACH_S_MAX = 60.0  # from the container's making
GONE = "who ran it has gone"


@dataclass
class Attachment:
    """Of one task. `over`: nothing of it can be attached to any more, for the reason in `problem`."""

    made: trio.Event = field(default_factory=trio.Event)
    attached: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    problem: str = ""


class Attachments:
    def __init__(self) -> None:
        self._tasks: dict[str, Attachment] = {}

    def of(self, task_id: str) -> Attachment:
        """Whoever asks first makes it; `forget` ends it."""
        return self._tasks.setdefault(task_id, Attachment())

    async def wait_attached(self, task_id: str) -> None:
        """The container is made. Raises TaskFailure where nobody comes, or they have gone again."""
        attachment = self.of(task_id)
        attachment.made.set()
        with trio.move_on_after(ATTACH_S_MAX) as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, attachment.gone, nursery.cancel_scope)
                await attachment.attached.wait()
                nursery.cancel_scope.cancel()
        if attachment.gone.is_set():
            raise TaskFailure(GONE)
        if waiting.cancelled_caught:
            raise TaskFailure(f"nobody has attached to it within {ATTACH_S_MAX:.0f} s")

    async def wait_gone(self, task_id: str) -> None:
        """Returns when nobody is attached any more; at once after a restart of the daemon."""
        attachment = self._tasks.get(task_id)
        if attachment is not None and attachment.attached.is_set():
            await attachment.gone.wait()

    def failed(self, task_id: str, problem: str) -> None:
        """It could not start; who waits for it learns why."""
        attachment = self._tasks.get(task_id)
        if attachment is not None:
            attachment.problem = problem
            attachment.over.set()

    def forget(self, task_id: str) -> None:
        """Nothing of the task is left."""
        attachment = self._tasks.pop(task_id, None)
        if attachment is not None:
            attachment.over.set()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
