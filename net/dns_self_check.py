"""Whether this host's name server answers, asked as a task would ask it: what is served is not always what is heard."""

from __future__ import annotations

from net import path_attempts
from net.addresses import GATEWAY_ADDRESS
from net.differences import DNS, Difference

CHECK_EVERY_SECONDS = 10.0
FAILURES_UNTIL_RESTART = 2


class DnsSelfCheck:
    """Asks for the cluster's own zone."""

    def __init__(self) -> None:
        self._failures = 0

    async def check(self, domain: str) -> tuple[list[str], bool]:
        """(differences in words, whether to serve anew)."""
        if not domain:
            return [], False
        answer = await path_attempts.resolve(None, domain)
        if answer.code:
            self._failures = 0
            return [], False
        self._failures += 1
        restart = self._failures >= FAILURES_UNTIL_RESTART
        self._failures = 0 if restart else self._failures
        return [Difference(DNS, f"the name server at {GATEWAY_ADDRESS} did not answer")], restart
