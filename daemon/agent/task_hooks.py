"""`post_start` and `pre_stop` of a task: processes in its container, beside its own.

A file beside those of the task's /etc says what has been done, since a daemon that comes back knows of no process that
an earlier one began: a post_start hook may be begun again then, a pre_stop hook is not.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from proto import objects_pb2 as objects
from runtime.errors import RuntimeFailure
from runtime.runtime import Runtime

logger = logging.getLogger(__name__)

POST_START_S_MAX = 600.0  # of one hook
END_SEEN_S = 0.5  # within which the end of the container is noticed, which ends its hooks too
OUTPUT_BYTES_MAX = 4096  # the last ones are kept
WORDS_CHARACTERS_MAX = 200
STARTED = "post_start.done"
STOPPING = "pre_stop.begun"


class TaskHooks:
    """`folder`/ID has the files of a task."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._folder = folder

    async def post_start(self, task: objects.Task) -> str:
        """Runs them in order, unless that has been done; why one has failed, "" where all succeeded."""
        hooks = task.spec.container.post_start
        done = self._folder / task.meta.id / STARTED
        if not hooks or done.exists():
            return ""
        for number, hook in enumerate(hooks, 1):
            problem = f"it has not ended within {POST_START_S_MAX:.0f} s"
            with trio.move_on_after(POST_START_S_MAX):
                problem = await self._run(task, hook)
            if problem:
                await trio.sleep(END_SEEN_S)  # who calls is cancelled where the container itself has ended
                return f"post_start hook {_named(number, hook, len(hooks))} failed: {problem}"
        done.touch()
        return ""

    async def pre_stop(self, task: objects.Task, grace_ms: int) -> int:
        """Runs them in order, within the grace period and unless an earlier stop has begun to; the milliseconds that
        it took. One that fails stops nobody from stopping."""
        hooks = task.spec.container.pre_stop
        begun = self._folder / task.meta.id / STOPPING
        if not hooks or begun.exists():
            return 0
        begun.touch()
        began_s = trio.current_time()
        with trio.move_on_after(grace_ms / 1000) as within:
            for number, hook in enumerate(hooks, 1):
                if problem := await self._run(task, hook):
                    words = _named(number, hook, len(hooks))
                    logger.warning("task %s: pre_stop hook %s failed: %s", task.meta.name, words, problem)
        if within.cancelled_caught:
            logger.warning("task %s: its pre_stop hooks took all of its grace period", task.meta.name)
        return round(1000 * (trio.current_time() - began_s))

    async def _run(self, task: objects.Task, hook: objects.Hook) -> str:
        """Why it failed; "" where it did not."""
        output = b""
        try:
            session = await self._runtime.exec(
                task.meta.id, hook.command, dict(hook.environment), hook.user, hook.working_dir
            )
            async with session:
                async for _, data in session.outputs():
                    output = (output + data)[-OUTPUT_BYTES_MAX:]
                code = await session.wait()
        except RuntimeFailure as error:
            return str(error)
        if code == 0:
            return ""
        last = output.decode(errors="replace").strip().rpartition("\n")[2].strip()
        return f"exit code {code}" + (f": {last[:WORDS_CHARACTERS_MAX]}" if last else "")


def _named(number: int, hook: objects.Hook, count: int) -> str:
    words = " ".join(hook.command)
    shown = words if len(words) <= WORDS_CHARACTERS_MAX else words[: WORDS_CHARACTERS_MAX - 3] + "..."
    return f"{number} of {count} ({shown})" if count > 1 else f"({shown})"
