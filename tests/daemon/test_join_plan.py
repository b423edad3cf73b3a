"""What a join writes, as a table of who asks with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.errors import Kind, Refused
from daemon.identity import keys, tokens
from daemon.joining.join_plan import plan_join
from daemon.orchestration.leases import LeasePool
from net.addresses import tunnel_mac
from proto import host_pb2
from proto import objects_pb2 as objects
from raft.features import FEATURE_LEVEL
from raft.schema import kind_of_message
from raft.transaction import TransactionBuilder
from tests.daemon.small_cluster import SmallCluster, now_unix_ms

EXPIRES = 1_900_000_000_000


def asking(token: str, **changes: Any) -> host_pb2.JoinRequest:
    parsed = tokens.parse(token)
    said: dict[str, Any] = {
        "token_id": parsed.token_id,
        "token_secret": parsed.secret,
        "name": "second",
        "address": "192.0.2.2",
        "api_port": 1,
        "raft_port": 2,
        "join_port": 3,
        "description": objects.NodeDescription(feature_level=FEATURE_LEVEL),
    }
    return host_pb2.JoinRequest(**(said | changes))


def plan(
    cluster: SmallCluster, request: host_pb2.JoinRequest, key: keys.PublicKey, now: int | None = None
) -> tuple[TransactionBuilder, host_pb2.JoinReply]:
    return plan_join(
        cluster.store,
        request,
        key,
        now if now is not None else now_unix_ms(),
        LeasePool(cluster.store),
        tunnel_mac,
        lambda _: (b"signed", EXPIRES),
        b"k" * 32,
    )


def test_a_plan_changes_nothing_and_is_repeatable(tmp_path: Path) -> None:
    cluster, key, now = SmallCluster(tmp_path), keys.new_private_key().public_key(), now_unix_ms()
    request = asking(cluster.token())
    revision = cluster.store.revision
    one = plan(cluster, request, key, now)[0].build("r", "join", now)
    two = plan(cluster, request, key, now)[0].build("r", "join", now)
    assert one == two
    assert cluster.store.revision == revision
    tables = [operation.table for operation in one.operations]
    assert sorted(tables) == sorted(["nodes", "leases", "leases", kind_of_message(objects.JoinToken).table])


def test_the_cluster_key_goes_to_voters_only(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    for role, expected in ((objects.NODE_ROLE_VOTER, b"k" * 32), (objects.NODE_ROLE_WORKER, b"")):
        _, reply = plan(cluster, asking(cluster.token(role)), keys.new_private_key().public_key())
        assert reply.cluster_key == expected
        assert reply.voter == bool(expected)
        assert reply.certificate_pem == b"signed"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"token_secret": b"x"}, Kind.DENIED, "not known"),
        ({"token_id": "0" * 26}, Kind.DENIED, "not known"),
        ({"name": ""}, Kind.INVALID, "node's name"),
        ({"name": "first"}, Kind.CONFLICT, "named first already"),
        ({"address": "127.0.0.1"}, Kind.CONFLICT, "is that of node first"),
        ({"address": ""}, Kind.INVALID, "not an IP address"),
        ({"address": "10.120.4.4"}, Kind.INVALID, "VIP pool"),
        ({"address": "2001:db8::2"}, Kind.INVALID, "reach each other by IPv4"),
        ({"raft_port": 0}, Kind.INVALID, "not a port for its raft"),
        ({"join_port": 70_000}, Kind.INVALID, "not a port for its join"),
        ({"labels": {"": ""}}, Kind.INVALID, "label"),
    ],
)
def test_who_is_refused(tmp_path: Path, changes: dict[str, Any], kind: Kind, words: str) -> None:
    cluster = SmallCluster(tmp_path)
    with pytest.raises(Refused, match=words) as caught:
        plan(cluster, asking(cluster.token(), **changes), keys.new_private_key().public_key())
    assert caught.value.kind is kind


def test_a_voter_is_not_made_a_worker_by_a_token(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    request = asking(cluster.token(), name="first", address="127.0.0.1")
    with pytest.raises(Refused, match="first votes in this cluster"):
        plan(cluster, request, cluster.identity.key.public_key())


def test_a_full_host_pool_is_said(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    (stored,) = cluster.store.table(objects.Cluster)
    small = objects.Cluster()
    small.CopyFrom(stored)
    (node,) = cluster.store.table(objects.Node)
    # Two blocks fit, of which the first is never given out and the second is the first node's.
    prefix = node.network.block.split("/")[0].rsplit(".", 2)[0]
    small.network.host_pool = f"{prefix}.0.0/23"
    cluster.apply(TransactionBuilder().update(small).build("r" * 26, "test", now_unix_ms()))
    with pytest.raises(Refused, match="no block of addresses is left") as caught:
        plan(cluster, asking(cluster.token()), keys.new_private_key().public_key())
    assert caught.value.kind is Kind.EXHAUSTED
