"""Removes the logs of tasks that the cluster does not remember any more.

The leader names the tasks of this host whose logs are to be kept: those that run, and the last few that have ended of
each slot. As long as no leader has named them, nothing is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from daemon.agent.host_view import HostView
from daemon.ids import is_id
from runtime.errors import RuntimeFailure
from runtime.runtime import Runtime

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 60.0
REST_S = 1.0  # tasks are forgotten many at a time


class LogAgent:
    """Follows the view. `in_use`: whether this host is still busy with a task."""

    def __init__(self, runtime: Runtime, view: HostView, in_use: Callable[[str], bool]) -> None:
        self._runtime = runtime
        self._view = view
        self._in_use = in_use
        self._wake = trio.Event()

    def changed(self) -> None:
        """A task was forgotten, or this host is done with one."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake = trio.Event()
            try:
                await self._remove_forgotten()
            except (RuntimeFailure, OSError) as error:
                logger.warning("logs of tasks that are forgotten cannot be removed: %s", error)
            await trio.sleep(REST_S)
            with trio.move_on_after(LOOK_INTERVAL_S):
                await self._wake.wait()

    async def _remove_forgotten(self) -> None:
        if not (self._view.complete and self._view.names_logs):
            return
        for task_id in await self._runtime.logged_ids():
            # Whatever else is in that folder is not ours. Looked up now: tasks may come while the folder is read.
            if is_id(task_id) and not self._view.keeps_log(task_id) and not self._in_use(task_id):
                await self._runtime.remove_logs(task_id)
