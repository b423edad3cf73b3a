"""Keeps this host's certificate young; what the leader signs is in daemon/identity/renewal_plan.py."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from daemon.identity.certificates import validity_unix_ms
from daemon.identity.identity import Identity
from daemon.identity.keys import certificate_request_pem
from daemon.identity.renewal_plan import Urgency, renewal_due_unix_ms, retry_wait_ms, urgency
from proto import host_pb2

logger = logging.getLogger(__name__)

ASK_MS_MAX = 30_000
SLEEP_MS_MAX = 3_600_000  # the clock is looked at again: it may have been set, or the host suspended

# Asks a leader to sign; raises what it likes where that fails.
Ask = Callable[[host_pb2.RenewCertificateRequest], Awaitable[host_pb2.RenewCertificateReply]]

_LEVELS = {
    Urgency.CALM: logging.INFO,
    Urgency.WARN: logging.WARNING,
    Urgency.ALARM: logging.ERROR,
    Urgency.EXPIRED: logging.CRITICAL,
}


@dataclass
class Renewal:
    """The loop that renews one host's certificate; `problem` is for `fairway status`, empty when all is well.

    `ask` reaches a leader, `now_unix_ms` is the wall clock, `random` gives numbers from 0 to 1.
    """

    identity: Identity
    ask: Ask
    now_unix_ms: Callable[[], int]
    random: Callable[[], float]
    renewed: Callable[[], None] = lambda: None  # called after each swap: channels are made anew
    problem: str = ""

    async def run(self) -> None:
        """Runs until cancelled; survives every failure."""
        failures = 0
        jitter = self.random()
        while True:
            begins, expires = validity_unix_ms(self.identity.certificate)
            wait_ms = renewal_due_unix_ms(begins, expires, jitter) - self.now_unix_ms()
            if wait_ms > 0:
                await trio.sleep(min(wait_ms, SLEEP_MS_MAX) / 1000)
                continue
            error = await self._renew()
            if error is None:
                failures, jitter = 0, self.random()
                continue
            failures += 1
            self._report(error, begins, expires)
            left_ms = expires - self.now_unix_ms()
            await trio.sleep(retry_wait_ms(failures, left_ms, self.random()) / 1000)

    async def _renew(self) -> Exception | None:
        request = host_pb2.RenewCertificateRequest(request_pem=certificate_request_pem(self.identity.key))
        try:
            with trio.fail_after(ASK_MS_MAX / 1000):
                reply = await self.ask(request)
            before = validity_unix_ms(self.identity.certificate)
            self.identity.renew(reply.certificate_pem, self.now_unix_ms())
            self.problem = ""
            if validity_unix_ms(self.identity.certificate)[1] <= before[1]:
                # A leader whose clock is behind: asking again at once would only give the same.
                return ValueError("the new certificate is valid no longer than the old; compare the clocks")
            self.renewed()
        except Exception as error:
            return error
        logger.info("the certificate of this host was renewed")
        return None

    def _report(self, error: Exception, begins: int, expires: int) -> None:
        now = self.now_unix_ms()
        hours = (expires - now) / 3_600_000
        when = f"expires in {hours:.0f} hours" if hours > 0 else f"expired {-hours:.0f} hours ago"
        reason = str(error) or type(error).__name__
        level = urgency(begins, expires, now)
        message = f"the certificate of this host {when} and could not be renewed: {reason}"
        self.problem = message if level >= Urgency.WARN else ""
        logger.log(_LEVELS[level], "%s", message)
