"""Keeps this host's certificate young, and signs new ones for others (on the leader)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from daemon.authority import cluster_of
from daemon.certificates import (
    CertificateAuthority,
    PeerIdentity,
    PeerKind,
    load_certificate,
    validity_unix_ms,
)
from daemon.errors import Kind, Refused
from daemon.identity import Identity
from daemon.keys import certificate_request_pem, node_id_of, public_key_sha256, requested_key
from daemon.renewal_plan import Urgency, renewal_due_unix_ms, retry_wait_ms, urgency
from proto import host_pb2
from proto import objects_pb2 as objects
from raft.store import Store

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


def sign_renewal(
    store: Store,
    authority: Callable[[], CertificateAuthority],
    caller: PeerIdentity,
    request: host_pb2.RenewCertificateRequest,
    now_unix_ms: int,
) -> tuple[host_pb2.RenewCertificateReply, objects.Node]:
    """A new certificate for the calling node's own key, and the node with its new expiry, to be stored.

    `authority` opens the CA, and is called last. Raises Refused: not a node of this cluster (any more), or
    a request for another key than the node's.
    """
    if caller.kind is not PeerKind.NODE:
        raise Refused(f"{caller.actor} is no node; only nodes renew their certificates here", Kind.DENIED)
    cluster = cluster_of(store)
    node = store.get(objects.Node, caller.name)
    if node is None:
        raise Refused(
            f"node {caller.name} was removed from the cluster; let the host join again", Kind.DENIED
        )
    try:
        key = requested_key(request.request_pem)
    except ValueError as error:
        raise Refused(f"the certificate cannot be renewed: {error}") from error
    if node_id_of(key) != caller.name or public_key_sha256(key) != node.public_key_sha256:
        raise Refused(f"the request is for another key than node {node.meta.name}'s", Kind.DENIED)
    signer = authority()
    pem = signer.sign_node(key, cluster.meta.id, now_unix_ms)
    changed = objects.Node()
    changed.CopyFrom(node)
    changed.certificate_expires_unix_ms = validity_unix_ms(load_certificate(pem))[1]
    reply = host_pb2.RenewCertificateReply(certificate_pem=pem, ca_certificate_pem=signer.certificate_pem())
    return reply, changed
