"""Which upstream server to ask first: in the order given, but those that were silent last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SILENCE_SECONDS_FIRST = 2.0
SILENCE_SECONDS_MAX = 60.0
SERVERS_MAX = 1024


@dataclass(slots=True)
class _Server:
    silences: int = 0  # in a row
    avoid_until: float = 0.0
    repeats_case: bool = True  # of the question; where not, case is no protection


class ServerHealth:
    """What is remembered of servers; times in seconds."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}

    def order(self, servers: Sequence[str], now: float) -> list[str]:
        """All of them: one that was silent comes last, until it is its time to be tried again."""

        def rank(server: str) -> float:
            known = self._servers.get(server)
            return known.avoid_until if known is not None and known.avoid_until > now else 0.0

        return sorted(servers, key=rank)

    def answered(self, server: str) -> None:
        known = self._servers.get(server)
        if known is not None:
            known.silences, known.avoid_until = 0, 0.0

    def was_silent(self, server: str, now: float) -> None:
        """It is avoided for a time that doubles with each silence in a row."""
        known = self._of(server)
        if now < known.avoid_until:
            return  # questions that were under way together are one silence
        known.silences += 1
        wait_seconds = SILENCE_SECONDS_FIRST * 2.0 ** min(known.silences - 1, 10)
        known.avoid_until = now + min(wait_seconds, SILENCE_SECONDS_MAX)

    def repeats_case(self, server: str) -> bool:
        known = self._servers.get(server)
        return known is None or known.repeats_case

    def changed_case(self, server: str) -> None:
        self._of(server).repeats_case = False

    def _of(self, server: str) -> _Server:
        if len(self._servers) >= SERVERS_MAX and server not in self._servers:
            self._servers.clear()
        return self._servers.setdefault(server, _Server())
