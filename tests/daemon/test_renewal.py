"""Certificates renew themselves: when, how often again, how loudly, and for whom."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio
import trio.testing

from daemon.errors import Refused
from daemon.identity.certificates import validity_unix_ms
from daemon.identity.identity import Identity
from daemon.identity.keys import certificate_request_pem, new_private_key
from daemon.identity.renewal import Renewal
from daemon.identity.renewal_plan import (
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    Urgency,
    renewal_due_unix_ms,
    retry_wait_ms,
    sign_renewal,
    urgency,
)
from daemon.identity.tls import NodeTls
from proto import host_pb2
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.small_cluster import SmallCluster, now_unix_ms
from tests.daemon.test_identity import serial_shown, within_deadline

DAY_MS = 86_400_000


def sign(cluster: SmallCluster, request: host_pb2.RenewCertificateRequest, now: int) -> host_pb2.RenewCertificateReply:
    """The leader's part, without the commit."""
    identity = cluster.identity
    return sign_renewal(cluster.store, identity.cluster_key, identity.node_id, request.request_pem, now)[1]


@pytest.mark.parametrize(("jitter", "due"), [(0.0, 60), (1.0, 64.5), (0.5, 62.25)])
def test_renewal_is_due_at_two_thirds(jitter: float, due: float) -> None:
    assert renewal_due_unix_ms(0, 90 * DAY_MS, jitter) == due * DAY_MS


@pytest.mark.parametrize(
    ("failures", "left_ms", "wait_ms"),
    [
        (1, 30 * DAY_MS, RETRY_MS_MIN),
        (2, 30 * DAY_MS, 2 * RETRY_MS_MIN),
        (50, 30 * DAY_MS, RETRY_MS_MAX),
        (50, 10 * 60_000, 60_000),
        (50, 1000, RETRY_MS_MIN),
        (50, -DAY_MS, RETRY_MS_MIN),
    ],
)
def test_retries_are_bounded(failures: int, left_ms: int, wait_ms: int) -> None:
    assert retry_wait_ms(failures, left_ms, 0.0) == wait_ms
    assert max(RETRY_MS_MIN, wait_ms // 2) == retry_wait_ms(failures, left_ms, 1.0)


@pytest.mark.parametrize(
    ("day", "expected"), [(61, Urgency.CALM), (70, Urgency.WARN), (85, Urgency.ALARM), (90, Urgency.EXPIRED)]
)
def test_urgency_grows(day: int, expected: Urgency) -> None:
    assert urgency(0, 90 * DAY_MS, day * DAY_MS) == expected


def test_a_certificate_renews_itself_and_retries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = now_unix_ms()
    cluster = SmallCluster(tmp_path, begun_unix_ms=begun)
    identity = cluster.identity
    asked_day: list[float] = []
    renewed: list[int] = []

    async def main() -> None:
        start = trio.current_time()

        def now() -> int:
            return begun + round((trio.current_time() - start) * 1000)

        async def ask(request: host_pb2.RenewCertificateRequest) -> host_pb2.RenewCertificateReply:
            asked_day.append((now() - begun) / DAY_MS)
            if asked_day[-1] < 88:
                raise OSError("no leader can be reached")
            return sign(cluster, request, now())

        renewal = Renewal(identity, ask, now, lambda: 0.0, lambda: renewed.append(now()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renewal.run)
            await trio.sleep(80 * 86_400)
            assert "could not be renewed: no leader can be reached" in renewal.problem
            assert not renewed
            await trio.sleep(9 * 86_400)
            assert len(renewed) == 1
            assert renewal.problem == ""
            nursery.cancel_scope.cancel()

    with caplog.at_level(logging.INFO, "daemon.identity.renewal"):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 59.9 < asked_day[0] < 60.1
    assert len(asked_day) < 1000
    levels = [record.levelno for record in caplog.records if "could not be renewed" in record.message]
    assert levels == sorted(levels)
    assert {logging.INFO, logging.WARNING, logging.ERROR} == set(levels)
    assert validity_unix_ms(identity.certificate)[1] > begun + 170 * DAY_MS


def test_new_handshakes_show_the_renewed_certificate(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path, begun_unix_ms=now_unix_ms() - 70 * DAY_MS)
    identity, tls = cluster.identity, NodeTls(cluster.identity)
    old = identity.certificate.serial_number

    async def ask(request: host_pb2.RenewCertificateRequest) -> host_pb2.RenewCertificateReply:
        return sign(cluster, request, now_unix_ms())

    async def main() -> None:
        assert await serial_shown(tls, tls.client_context()) == old
        swapped = trio.Event()
        renewal = Renewal(identity, ask, now_unix_ms, lambda: 0.0, swapped.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renewal.run)
            await swapped.wait()
            nursery.cancel_scope.cancel()
        assert await serial_shown(tls, tls.client_context()) == identity.certificate.serial_number != old
        again = Identity.load(identity.folder)
        assert again is not None
        assert again.certificate == identity.certificate

    within_deadline(main)


def test_whose_renewal_is_signed(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    identity, now = cluster.identity, now_unix_ms()
    key, own = identity.cluster_key, certificate_request_pem(identity.key)
    builder, reply = sign_renewal(cluster.store, key, identity.node_id, own, now + DAY_MS)
    assert reply.ca_certificate_pem == identity.ca_pem
    before = cluster.store.get(objects.Node, identity.node_id)
    cluster.apply(builder.build("q" * 26, "test", now))
    stored = cluster.store.get(objects.Node, identity.node_id)
    assert before is not None
    assert stored is not None
    assert stored.certificate_expires_unix_ms == (now + 91 * DAY_MS) // 1000 * 1000
    assert stored.certificate_expires_unix_ms > before.certificate_expires_unix_ms
    assert stored.network == before.network

    for node_id, request_pem, words in [
        (identity.node_id, certificate_request_pem(new_private_key()), "another key"),
        (identity.node_id, b"garbage", "cannot be renewed"),
        ("0" * 26, own, "was removed"),
    ]:
        with pytest.raises(Refused, match=words):
            sign_renewal(cluster.store, key, node_id, request_pem, now)
    with pytest.raises(Refused, match="only voters sign"):
        sign_renewal(cluster.store, None, identity.node_id, own, now)
    cluster.apply(TransactionBuilder().delete(stored).build("r" * 26, "test", now))
    with pytest.raises(Refused, match="was removed"):
        sign_renewal(cluster.store, key, identity.node_id, own, now)
