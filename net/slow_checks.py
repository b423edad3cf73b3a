"""What is compared more seldom than the kernel's objects: the name server's answers, and connections to nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from net.connections_sweep import SWEEP_EVERY_SECONDS, ConnectionsSweep
from net.dns_self_check import CHECK_EVERY_SECONDS, DnsSelfCheck
from net.errors import NetworkError
from net.model import DesiredNetwork
from net.path_observer import connection_count

log = logging.getLogger(__name__)

CPU_SHARE_MAX = 0.005  # of a sweep


class SlowChecks:
    """`desired` gives what was applied, `note` takes the differences, `serve_anew` restarts the name server."""

    def __init__(
        self,
        desired: Callable[[], DesiredNetwork | None],
        note: Callable[[list[str]], None],
        serve_anew: Callable[[], None],
    ) -> None:
        self._dns = DnsSelfCheck()
        self._desired = desired
        self._note = note
        self._serve_anew = serve_anew
        self._sweep = ConnectionsSweep()

    async def run(self) -> None:
        """Checks until cancelled; a failure is logged and tried again."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._check_names)
            nursery.start_soon(self._sweep_connections)

    async def _check_names(self) -> None:
        while True:
            await trio.sleep(CHECK_EVERY_SECONDS)
            desired = self._desired()
            if desired is not None:
                found, restart = await self._dns.check(desired.config.dns_domain)
                self._note(found)
                if restart:
                    self._serve_anew()

    async def _sweep_connections(self) -> None:
        wait_seconds = SWEEP_EVERY_SECONDS
        while True:
            await trio.sleep(wait_seconds)
            desired = self._desired()
            if desired is None:
                continue
            began = trio.current_time()
            try:
                self._note(await trio.to_thread.run_sync(self._sweep.sweep, desired, connection_count()[0]))
            except (NetworkError, OSError) as error:
                log.warning("look for connections to nobody: %s", error)
            wait_seconds = max(SWEEP_EVERY_SECONDS, (trio.current_time() - began) / CPU_SHARE_MAX)
