"""Has the cluster make the next step towards the encryption that is wanted, as soon as it is safe."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from daemon.errors import Refused
from daemon.leader.encryption_plan import plan_encryption
from daemon.leader.sessions import Sessions
from daemon.leader.writer import Writer

logger = logging.getLogger(__name__)

INTERVAL_S = 0.25


class EncryptionSteps:
    """Runs on the leader."""

    def __init__(self, writer: Writer, sessions: Sessions, now_unix_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._acknowledged = sessions.cluster_network_revision
        self._now_unix_ms = now_unix_ms

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(INTERVAL_S)
            if not len(plan_encryption(self._writer.store, self._acknowledged(), self._now_unix_ms())):
                continue
            try:
                await self._writer.commit(
                    lambda store, now, _: (plan_encryption(store, self._acknowledged(), now), None), actor="leader"
                )
            except Refused as refused:
                logger.warning("the next step of encryption was not committed: %s", refused.message)
