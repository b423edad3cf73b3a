"""The identity on disk, and TLS with it over real sockets."""

from __future__ import annotations

import json
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from cryptography import x509

from daemon.api.caller import LOCAL_ROOT, Caller, caller_of, require_node, require_operator
from daemon.errors import Refused
from daemon.identity import keys
from daemon.identity.certificates import PeerIdentity, PeerKind, certificate_pem, node_server_name
from daemon.identity.identity import Identity, IdentityBroken, KnownNode, load_or_create_key
from daemon.identity.tls import NodeTls
from proto.grpc_trio import call, run
from tests.daemon.small_cluster import SmallCluster, now_unix_ms

DEADLINE_S = 60


def within_deadline(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(DEADLINE_S):
            await main()

    trio.run(bounded)


def test_an_identity_comes_back_from_disk(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    nodes = [KnownNode("n" * 26, "second", "192.0.2.2", 1, 2, 3)]
    cluster.identity.remember(nodes, "renamed")
    again = Identity.load(cluster.identity.folder)
    assert again is not None
    assert again.membership == cluster.identity.membership
    assert again.membership.nodes == tuple(nodes)
    assert again.membership.node_name == "renamed"
    assert again.cluster_key == cluster.identity.cluster_key
    assert again.certificate == cluster.identity.certificate
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in again.folder.iterdir()}
    assert modes == {
        "node.key": 0o600, "cluster.key": 0o600, "cluster.json": 0o600, "node.crt": 0o644, "ca.crt": 0o644
    }  # fmt: skip
    assert stat.S_IMODE(again.folder.stat().st_mode) == 0o700


def test_without_cluster_json_the_host_belongs_to_no_cluster(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    folder = cluster.identity.folder
    (folder / "cluster.json").unlink()
    assert Identity.load(folder) is None
    assert Identity.load(tmp_path / "absent") is None
    # A key that an earlier attempt left is used again.
    assert load_or_create_key(folder).public_key() == cluster.identity.key.public_key()
    cluster.identity.save()
    cluster.identity.forget()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cluster.json", b"{"),
        ("cluster.json", b"[]"),
        ("cluster.json", b'{"format": 99}'),
        ("node.crt", b"garbage"),
        ("node.key", b"garbage"),
        ("ca.crt", b""),
        ("node.key", keys.private_key_pem(keys.new_private_key())),
    ],
)
def test_a_damaged_identity_says_what_to_do(tmp_path: Path, name: str, content: bytes) -> None:
    folder = SmallCluster(tmp_path).identity.folder
    (folder / name).write_bytes(content)
    with pytest.raises(IdentityBroken, match="Restore the folder"):
        Identity.load(folder)


def test_a_missing_file_is_a_damaged_identity(tmp_path: Path) -> None:
    folder = SmallCluster(tmp_path).identity.folder
    (folder / "cluster.key").unlink()
    with pytest.raises(IdentityBroken, match=r"cluster\.key"):
        Identity.load(folder)


def test_only_a_certificate_of_its_own_is_swapped_in(tmp_path: Path) -> None:
    cluster, other = SmallCluster(tmp_path / "a"), SmallCluster(tmp_path / "b")
    identity, now = cluster.identity, now_unix_ms()
    before = identity.certificate_path.read_bytes()
    own, stranger = identity.key.public_key(), keys.new_private_key().public_key()
    bad = [
        cluster.authority().sign_node(stranger, identity.cluster_id, now),
        other.authority().sign_node(own, identity.cluster_id, now),
        cluster.authority().sign_node(own, other.identity.cluster_id, now),
        cluster.authority().sign_operator(own, identity.cluster_id, "anna", now),
        cluster.authority().sign_node(own, identity.cluster_id, now - 100 * 86_400_000),
        b"garbage",
    ]
    for pem in bad:
        with pytest.raises(ValueError):
            identity.renew(pem, now)
    assert identity.certificate_path.read_bytes() == before
    identity.renew(cluster.authority().sign_node(own, identity.cluster_id, now), now)
    assert identity.certificate_path.read_bytes() != before
    assert json.loads((identity.folder / "cluster.json").read_text())["node_id"] == identity.node_id


async def serial_shown(tls: NodeTls, context: ssl.SSLContext) -> int:
    """A handshake over loopback with a server of `tls`; the serial of the certificate that it shows."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    failures: list[BaseException] = []

    async def serve() -> None:
        stream = trio.SSLStream(await listeners[0].accept(), tls.server_context(), server_side=True)
        try:
            await stream.do_handshake()
            await stream.send_all(tls.peer_node_id(stream.getpeercert(binary_form=True)).encode())
        except (trio.BrokenResourceError, ValueError) as error:
            failures.append(error)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery, listeners[0]:
        nursery.start_soon(serve)
        port = listeners[0].socket.getsockname()[1]
        client = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context)
        try:
            await client.do_handshake()
            serial = x509.load_der_x509_certificate(client.getpeercert(binary_form=True)).serial_number
            # TLS 1.3: only data from the server shows that it took our certificate.
            if await client.receive_some(26) == b"":
                raise ConnectionError("the server ended the connection")
        finally:
            await trio.aclose_forcefully(client)
    if failures:
        raise failures[0]
    return int(serial)


def test_nodes_of_one_cluster_meet_and_renewal_shows_at_the_next_handshake(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    tls = NodeTls(cluster.identity)

    async def main() -> None:
        assert await serial_shown(tls, tls.client_context()) == cluster.identity.certificate.serial_number
        before = cluster.identity.certificate.serial_number
        own = cluster.identity.key.public_key()
        pem = cluster.authority().sign_node(own, cluster.identity.cluster_id, now_unix_ms())
        cluster.identity.renew(pem, now_unix_ms())
        shown = await serial_shown(tls, tls.client_context())
        assert shown == cluster.identity.certificate.serial_number != before

    within_deadline(main)


def test_no_node_of_another_cluster_no_operator_and_nobody_without_a_certificate_gets_in(
    tmp_path: Path,
) -> None:
    cluster, other = SmallCluster(tmp_path / "a"), SmallCluster(tmp_path / "b")
    tls = NodeTls(cluster.identity)
    foreign = NodeTls(other.identity).client_context()
    foreign.load_verify_locations(cadata=cluster.identity.ca_pem.decode())
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE
    operator = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    operator.check_hostname = False
    operator.load_verify_locations(cadata=cluster.identity.ca_pem.decode())
    (tmp_path / "operator.key").write_bytes(cluster.reply.operator_private_key_pem)
    (tmp_path / "operator.crt").write_bytes(cluster.reply.operator_certificate_pem)
    operator.load_cert_chain(tmp_path / "operator.crt", tmp_path / "operator.key")
    old = NodeTls(other.identity).client_context()  # trusts its own CA only: refuses our server

    async def main() -> None:
        for context in (foreign, nobody, operator, old):
            with pytest.raises((trio.BrokenResourceError, ConnectionError, ValueError, ExceptionGroup)):
                await serial_shown(tls, context)

    within_deadline(main)


class EchoCaller(grpc.GenericRpcHandler):
    """Answers every call with who called."""

    def __init__(self, cluster_id: str) -> None:
        self._cluster_id = cluster_id

    def service(self, _: Any) -> Any:
        async def handler(_request: bytes, context: Any) -> bytes:
            try:
                return caller_of(context, self._cluster_id).actor.encode()
            except Refused as refused:
                return b"refused: " + refused.message.encode()

        return grpc.unary_unary_rpc_method_handler(handler)


async def ask_who(channel: grpc.aio.Channel) -> str:
    try:
        ask: Any = channel.unary_unary("/test/Who")
        return str(bytes(await call(ask(b"", timeout=30))).decode())
    finally:
        await call(channel.close(None))


def test_grpc_knows_its_callers_and_takes_renewed_certificates(tmp_path: Path) -> None:
    cluster, other = SmallCluster(tmp_path / "a"), SmallCluster(tmp_path / "b")
    identity = cluster.identity
    tls = NodeTls(identity)

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((EchoCaller(identity.cluster_id),))
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials())
        plain = server.add_insecure_port("127.0.0.1:0")
        socket = f"unix:{tmp_path}/s"
        server.add_insecure_port(socket)
        await call(server.start())
        try:
            place = f"127.0.0.1:{port}"

            def channel(of: NodeTls, options: Any) -> grpc.aio.Channel:
                return grpc.aio.secure_channel(place, of.channel_credentials(), options=options)

            assert await ask_who(channel(tls, tls.channel_options())) == f"node/{identity.node_id}"
            assert await ask_who(channel(tls, tls.channel_options(identity.node_id))) == f"node/{identity.node_id}"
            operator = grpc.ssl_channel_credentials(
                cluster.reply.ca_certificate_pem,
                cluster.reply.operator_private_key_pem,
                cluster.reply.operator_certificate_pem,
            )
            named = [("grpc.ssl_target_name_override", "api.fairway")]
            assert await ask_who(grpc.aio.secure_channel(place, operator, options=named)) == "operator/admin"
            assert await ask_who(grpc.aio.insecure_channel(socket)) == "local/root"
            refusal = await ask_who(grpc.aio.insecure_channel(f"127.0.0.1:{plain}"))
            assert refusal.startswith("refused: the call came without a certificate")

            another_node = [("grpc.ssl_target_name_override", node_server_name("0" * 26))]
            foreign = grpc.ssl_channel_credentials(
                identity.ca_pem,
                keys.private_key_pem(other.identity.key),
                certificate_pem(other.identity.certificate),
            )
            for credentials, options in (
                (tls.channel_credentials(), another_node),
                (foreign, named),
                (NodeTls(other.identity).channel_credentials(), named),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await ask_who(grpc.aio.secure_channel(place, credentials, options=options))

            own = identity.key.public_key()
            identity.renew(cluster.authority().sign_node(own, identity.cluster_id, now_unix_ms()), now_unix_ms())
            assert await ask_who(channel(tls, tls.channel_options())) == f"node/{identity.node_id}"
            context = tls.client_context()
            context.set_alpn_protocols(["h2"])
            stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context)
            await stream.do_handshake()
            shown = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))
            await trio.aclose_forcefully(stream)
            assert shown == identity.certificate
        finally:
            await call(server.stop(None))

    async def bounded() -> None:
        with trio.fail_after(DEADLINE_S):
            await main()

    run(bounded)


def test_calls_are_for_operators_or_for_hosts() -> None:
    node, anna = Caller(PeerIdentity(PeerKind.NODE, "id")), Caller(PeerIdentity(PeerKind.OPERATOR, "anna"))
    assert require_node(node) == "id"
    require_operator(anna)
    require_operator(LOCAL_ROOT)
    for caller in (anna, LOCAL_ROOT):
        with pytest.raises(Refused, match="for the cluster's hosts"):
            require_node(caller)
    with pytest.raises(Refused, match="for operators"):
        require_operator(node)
