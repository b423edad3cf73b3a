"""Compares the kernel with what is wanted again and again, and at once when somebody else has touched it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import closing

import trio

from net.errors import NetworkError
from net.model import Counters
from net.nftables import table_name
from net.outside_changes import OutsideChanges
from net.table_changes import TableChanges

log = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 3.0
CHECK_CPU_SHARE_MAX = 0.02
CHECK_AFTER_CHANGE_CPU_SHARE_MAX = 0.05  # as far as the longest rest allows
CHECK_AFTER_CHANGE_REST_SECONDS = 0.2
CHECK_AFTER_CHANGE_REST_SECONDS_MAX = 1.0
CHECK_AGAIN_SECONDS_FIRST = 0.5  # after one that failed: mostly, somebody changed more while it repaired
CHECK_SECONDS_MAX = 60.0  # between two, however long they take or often they fail


class CheckLoop:
    """`prefix` begins the names of what is ours; `check` raises where it could not compare or repair."""

    def __init__(self, prefix: str, check: Callable[[], Awaitable[object]], counters: Counters) -> None:
        self._prefix = prefix
        self._check = check
        self._counters = counters
        self._changed_outside = trio.Event()

    async def run(self) -> None:
        """Until cancelled, in the network namespace that is checked."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._check_forever)
            # Without these, it looks later.
            nursery.start_soon(self._listen_to, lambda: OutsideChanges(self._prefix))
            nursery.start_soon(self._listen_to, lambda: TableChanges(table_name(self._prefix)))

    async def wait_touched(self) -> None:
        """Until somebody else changes something, an address of the host's say; at once while that is looked at."""
        await self._changed_outside.wait()

    async def _check_forever(self) -> None:
        wait_seconds, rest_seconds = CHECK_EVERY_SECONDS, CHECK_AFTER_CHANGE_REST_SECONDS
        again_seconds = CHECK_AGAIN_SECONDS_FIRST
        while True:
            await trio.sleep(rest_seconds)
            with trio.move_on_after(wait_seconds - rest_seconds):
                await self._changed_outside.wait()
            self._changed_outside = trio.Event()
            started = trio.current_time()
            try:
                await self._check()
                # Where a check takes long, there are fewer of them.
                took_seconds = trio.current_time() - started
                wait_seconds = max(CHECK_EVERY_SECONDS, min(took_seconds / CHECK_CPU_SHARE_MAX, CHECK_SECONDS_MAX))
                rest_seconds = max(CHECK_AFTER_CHANGE_REST_SECONDS, took_seconds / CHECK_AFTER_CHANGE_CPU_SHARE_MAX)
                rest_seconds = min(rest_seconds, CHECK_AFTER_CHANGE_REST_SECONDS_MAX)
                again_seconds = CHECK_AGAIN_SECONDS_FIRST
            except Exception as error:
                self._counters.check_failure_count += 1
                wait_seconds, again_seconds = again_seconds, min(2 * again_seconds, CHECK_SECONDS_MAX)
                rest_seconds = min(wait_seconds, CHECK_EVERY_SECONDS)
                expected = isinstance(error, (NetworkError, OSError))
                log.error(
                    "check the network against the kernel: %s; next in %.1f s",
                    error,
                    wait_seconds,
                    exc_info=not expected,
                )

    async def _listen_to(self, make: Callable[[], OutsideChanges | TableChanges]) -> None:
        try:
            with closing(make()) as changes:
                await changes.listen(lambda: self._changed_outside.set())
        except NetworkError as error:
            log.warning("%s; changes by others are found within %.0f s", error, CHECK_EVERY_SECONDS)
