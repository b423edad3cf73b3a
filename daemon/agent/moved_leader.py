"""Where the leader of this host's session is now, as it said itself when its address changed."""

from __future__ import annotations

import trio

from daemon.agent.leader_connection import Leader

BELIEVED_S_MAX = 5.0  # until then its new address has come with the state


class MovedLeader:
    """The last word of a leader about its place, for a while."""

    def __init__(self) -> None:
        self._place: Leader | None = None
        self._until_s = 0.0
        self._changed = trio.Event()

    def note(self, leader: Leader) -> None:
        """The leader has told where it is."""
        self._place, self._until_s = leader, trio.current_time() + BELIEVED_S_MAX
        self._changed.set()
        self._changed = trio.Event()

    def better(self, known: Leader | None) -> Leader | None:
        """Where the leader is, as otherwise `known`; what it said counts as long as nobody else is known to lead."""
        if self._place is None or trio.current_time() > self._until_s:
            return known
        return self._place if known is None or known.node_id == self._place.node_id else known

    async def wait_changed(self) -> None:
        """Returns when a leader has told a new place."""
        await self._changed.wait()
