"""Joining over real TLS on loopback: whom the join port lets in, and what it survives."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon.errors import Refused
from daemon.identity import tokens
from daemon.identity.certificates import certificate_der, parse_peer
from daemon.identity.identity import Identity
from daemon.identity.keys import certificate_request_pem, new_private_key
from daemon.joining.join_client import join_cluster
from daemon.joining.join_frames import REPLY_BYTES_MAX, receive_frame, send_frame
from daemon.joining.join_limits import JoinLimits, WrongTokens
from daemon.joining.join_server import JoinServer, LeaderPlace
from proto import control_pb2, host_pb2
from proto import objects_pb2 as objects
from raft.features import FEATURE_LEVEL
from tests.daemon.small_cluster import ADDRESS, SmallCluster, config_in, now_unix_ms

DEADLINE_S = 60
JOINER = "127.0.0.9"  # what the hosts say of themselves; nothing is sent there


def within_deadline(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(DEADLINE_S):
            await main()

    trio.run(bounded)


@asynccontextmanager
async def join_port(cluster: SmallCluster, limits: JoinLimits | None = None) -> AsyncIterator[int]:
    """A leader's join port."""
    place = LeaderPlace(cluster.identity.node_id, ADDRESS, 1)
    server = JoinServer(cluster.identity, cluster.register, lambda: place, limits)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(server.run, ADDRESS, 0)
        nursery.cancel_scope.cancel()


async def join(folder: Path, port: int, token: str, name: str = "second", address: str = JOINER) -> Identity:
    request = control_pb2.JoinClusterRequest(
        address=f"{ADDRESS}:{port}", token=token, advertise_address=address, labels={"disk": "ssd"}
    )
    description = objects.NodeDescription(hostname=name, cpu_millis=2000, feature_level=FEATURE_LEVEL)
    return await join_cluster(config_in(folder, name), request, description, now_unix_ms())


@pytest.mark.parametrize("role", [objects.NODE_ROLE_VOTER, objects.NODE_ROLE_WORKER])
def test_a_host_joins(tmp_path: Path, role: objects.NodeRole.ValueType) -> None:
    cluster = SmallCluster(tmp_path / "first")
    token = cluster.token(role)

    async def main() -> None:
        async with join_port(cluster) as port:
            identity = await join(tmp_path / "second", port, token)
        voter = role == objects.NODE_ROLE_VOTER
        assert identity.membership.voter == voter
        assert identity.cluster_key == (cluster.identity.cluster_key if voter else None)
        assert identity.cluster_id == cluster.identity.cluster_id
        assert [node.node_id for node in identity.membership.nodes] == [cluster.identity.node_id]
        node = cluster.store.get(objects.Node, identity.node_id)
        assert node is not None
        assert (node.meta.name, node.address, node.role, node.voter) == ("second", JOINER, role, False)
        assert node.meta.labels["disk"] == "ssd"
        assert node.description.cpu_millis == 2000
        first = cluster.store.get(objects.Node, cluster.identity.node_id)
        assert first is not None
        assert node.network.block != first.network.block
        assert (first.network.ordinal, node.network.ordinal) == (1, 2)
        stored = cluster.store.get(objects.JoinToken, tokens.parse(token).token_id)
        assert stored is not None
        assert stored.used_count == 1
        assert cluster.registered_from == [ADDRESS]
        again = Identity.load(identity.folder)
        assert again is not None
        assert again.membership == identity.membership

    within_deadline(main)


def test_the_same_host_joins_again_and_keeps_its_place(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster) as port:
            one = await join(tmp_path / "second", port, cluster.token())
            before = cluster.store.get(objects.Node, one.node_id)
            (one.folder / "cluster.json").unlink()
            two = await join(tmp_path / "second", port, cluster.token(), name="renamed")
        after = cluster.store.get(objects.Node, two.node_id)
        assert before is not None
        assert after is not None
        assert one.node_id == two.node_id
        assert after.network == before.network
        assert after.meta.name == "renamed"

    within_deadline(main)


def test_without_an_address_the_connections_is_taken(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster) as port:
            # On loopback that is the first host's own address, which tells that it was taken.
            with pytest.raises(Refused, match=r"address 127\.0\.0\.1 is that of node first already"):
                await join(tmp_path / "second", port, cluster.token(), address="")

    within_deadline(main)


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    cluster, other = SmallCluster(tmp_path / "first"), SmallCluster(tmp_path / "other")
    wrong_secret = cluster.token().split("-")
    wrong_secret[3] = other.token().split("-")[3]
    cases = [
        (other.token(), "second", JOINER, "this token belongs to another cluster"),
        (cluster.token(valid_ms=-1), "second", JOINER, "has expired"),
        (cluster.token(revoked=True), "second", JOINER, "was revoked"),
        ("-".join(wrong_secret), "second", JOINER, "not known to this cluster"),
        (cluster.token(), "first", JOINER, "a node named first already"),
        (cluster.token(), "second", ADDRESS, "is that of node first already"),
        (cluster.token(), "Second", JOINER, "lower-case"),
        (cluster.token(), "second", "0.0.0.0", "no address of one host"),
        (cluster.token(), "second", "10.112.0.7", "lies in the host pool"),
        ("garbage", "second", JOINER, "not a join token"),
    ]

    async def main() -> None:
        async with join_port(cluster) as port:
            for number, (token, name, address, words) in enumerate(cases):
                folder = tmp_path / f"joiner-{number}"
                with pytest.raises(Refused, match=words):
                    await join(folder, port, token, name, address)
                assert Identity.load(config_in(folder).identity_folder) is None

    before = (len(cluster.store.table(objects.Node)), len(cluster.store.table(objects.Lease)))
    within_deadline(main)
    assert (len(cluster.store.table(objects.Node)), len(cluster.store.table(objects.Lease))) == before


def test_a_foreign_cluster_is_sent_nothing(tmp_path: Path) -> None:
    cluster, other = SmallCluster(tmp_path / "first"), SmallCluster(tmp_path / "other")

    async def main() -> None:
        async with join_port(cluster) as port:
            with pytest.raises(Refused, match="Nothing was sent"):
                await join(tmp_path / "second", port, other.token())
        assert cluster.registered_from == []

    within_deadline(main)


def test_who_only_shows_the_clusters_ca_is_sent_nothing(tmp_path: Path) -> None:
    """The CA's certificate is public: an impostor can greet with it, but has no node's certificate of it."""
    cluster, impostor = SmallCluster(tmp_path / "first"), SmallCluster(tmp_path / "impostor")
    impostor.identity.ca_certificate = cluster.identity.ca_certificate

    async def main() -> None:
        async with join_port(impostor) as port:
            with pytest.raises(Refused, match="did not prove to be a node"):
                await join(tmp_path / "second", port, cluster.token())
        assert impostor.registered_from == []

    within_deadline(main)


def test_a_voter_that_does_not_lead_relays(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def unused(_request: host_pb2.JoinRequest, _address: str) -> host_pb2.JoinReply:
        raise AssertionError("only the leader registers")

    async def main() -> None:
        async with join_port(cluster) as leader_port, trio.open_nursery() as nursery:
            follower = await join(tmp_path / "follower", leader_port, cluster.token(objects.NODE_ROLE_VOTER))
            # The follower hears from "another address" than the leader's, as on real hosts.
            place = LeaderPlace(cluster.identity.node_id, "localhost", leader_port)
            server = JoinServer(follower, unused, lambda: place)
            port = await nursery.start(server.run, ADDRESS, 0)
            identity = await join(tmp_path / "third", port, cluster.token(), "third", "127.0.0.10")
            assert cluster.store.get(objects.Node, identity.node_id) is not None
            nursery.cancel_scope.cancel()

    within_deadline(main)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "no leader at the moment"),
        (LeaderPlace("0" * 26, ADDRESS, 1), "choosing its leader"),
        (LeaderPlace("0" * 26, "localhost", 1), "cannot be reached from here"),
    ],
)
def test_without_a_leader_in_reach_the_host_is_told(tmp_path: Path, place: LeaderPlace | None, words: str) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = JoinServer(cluster.identity, cluster.register, lambda: place)
            port = await nursery.start(server.run, ADDRESS, 0)
            with pytest.raises(Refused, match=words):
                await join(tmp_path / "second", port, cluster.token())
            nursery.cancel_scope.cancel()

    within_deadline(main)


async def secure_stream(port: int, tries: int = 1) -> trio.SSLStream[trio.SocketStream]:
    """`tries`: a busy machine may take longer for the handshake than the port gives it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        stream = trio.SSLStream(await trio.open_tcp_stream(ADDRESS, port), context)
        tries -= 1
        try:
            await stream.do_handshake()
            await receive_frame(stream, host_pb2.JoinGreeting, REPLY_BYTES_MAX)
            return stream
        except Exception:
            await trio.aclose_forcefully(stream)
            if not tries:
                raise


async def is_closed(stream: trio.abc.ReceiveStream) -> bool:
    """Waits until the other end closes."""
    try:
        while await stream.receive_some(1024):
            pass
    except (trio.BrokenResourceError, OSError):
        pass
    return True


def test_garbage_oversize_frames_and_slow_clients_are_cut_off(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster) as port, join_port(cluster, JoinLimits(exchange_ms_max=300)) as hasty:
            raw = await trio.open_tcp_stream(ADDRESS, port)
            await raw.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
            assert await is_closed(raw)
            silent = await trio.open_tcp_stream(ADDRESS, hasty)
            assert await is_closed(silent)
            oversize = await secure_stream(port)
            await oversize.send_all(b"\xff\xff\xff\xff")
            assert await is_closed(oversize)
            garbage = await secure_stream(port)
            await garbage.send_all(b"\0\0\0\4\xff\xff\xff\xff")
            assert await is_closed(garbage)
            slow = await secure_stream(hasty, tries=20)
            with contextlib.suppress(trio.BrokenResourceError):  # it was slow already
                await slow.send_all(b"\0\0")
            assert await is_closed(slow)
            for stream in (oversize, garbage, slow):
                await trio.aclose_forcefully(stream)
            await raw.aclose()
            await silent.aclose()
            await join(tmp_path / "second", port, cluster.token())  # and it still serves
        assert cluster.registered_from == [ADDRESS]

    within_deadline(main)


def test_connections_at_once_are_bounded(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster, JoinLimits(connections_per_address_max=2)) as port:
            held = [await secure_stream(port) for _ in range(2)]
            third = await trio.open_tcp_stream(ADDRESS, port)
            assert await is_closed(third)
            await third.aclose()
            for stream in held:
                await trio.aclose_forcefully(stream)
            while True:  # until the server has seen that they are gone
                try:
                    await join(tmp_path / "second", port, cluster.token())
                    break
                except Refused:
                    await trio.sleep(0.02)

    within_deadline(main)


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")
    limits = JoinLimits(wrong_tokens_max=2)

    async def main() -> None:
        async with join_port(cluster, limits) as port:
            for words in ("not known", "not known", "too many wrong tokens"):
                stream = await secure_stream(port)
                csr = _some_request()
                await send_frame(stream, host_pb2.JoinRequest(token_id="x", name="a", certificate_request_pem=csr))
                reply = await receive_frame(stream, host_pb2.JoinReply, REPLY_BYTES_MAX)
                assert words in reply.error
                await trio.aclose_forcefully(stream)

    within_deadline(main)


def _some_request() -> bytes:
    return certificate_request_pem(new_private_key())


def test_wrong_tokens_are_forgotten_with_time_and_bounded() -> None:
    counted = WrongTokens(JoinLimits(wrong_tokens_max=2, wrong_token_window_ms=1000, wrong_token_addresses_max=2))
    counted.note("a", 0)
    assert counted.wait_ms("a", 0) == 0
    counted.note("a", 100)
    assert counted.wait_ms("a", 400) == 600
    assert counted.wait_ms("b", 400) == 0
    assert counted.wait_ms("a", 1000) == 0
    for address in ("b", "c", "d"):
        counted.note(address, 500)
    assert counted.wait_ms("a", 500) == 0  # the oldest made room


def test_nobody_there(tmp_path: Path) -> None:
    async def main() -> None:
        token = SmallCluster(tmp_path / "first").token()
        with socket.socket() as nobody:  # bound and not listening: refuses
            nobody.bind((ADDRESS, 0))
            port = nobody.getsockname()[1]
            with pytest.raises(Refused, match=f"cannot join by {ADDRESS}:{port}: .*firewall"):
                await join(tmp_path / "second", port, token)

    within_deadline(main)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster) as port:
            server = JoinServer(cluster.identity, cluster.register, lambda: None)
            with pytest.raises(Refused, match=f"the join port {port} cannot be opened"):
                await server.run(ADDRESS, port)

    within_deadline(main)


def test_the_certificate_is_for_the_hosts_own_key(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path / "first")

    async def main() -> None:
        async with join_port(cluster) as port:
            identity = await join(tmp_path / "second", port, cluster.token())
        peer = parse_peer(certificate_der(identity.certificate), cluster.identity.cluster_id)
        assert peer.name == identity.node_id
        assert (identity.key_path.stat().st_mode & 0o777) == 0o600

    within_deadline(main)
