"""Joining a cluster: the token tells which CA to trust before anything is said."""

from __future__ import annotations

import hmac
import logging
import ssl

import trio
from cryptography import x509

from daemon.config import Config
from daemon.config_checks import unicast_address_error
from daemon.errors import Kind, Refused
from daemon.identity import certificates, tokens
from daemon.identity.identity import Identity, KnownNode, Membership, load_or_create_key
from daemon.identity.keys import certificate_request_pem
from daemon.identity.node_names import labels_error, node_name_error, node_name_from_hostname
from daemon.identity.places import parse_place, place_text
from daemon.joining.join_frames import REPLY_BYTES_MAX, FrameError, receive_frame, send_frame
from proto import control_pb2, host_pb2
from proto import objects_pb2 as objects

logger = logging.getLogger(__name__)

CONNECT_MS_MAX = 10_000
EXCHANGE_MS_MAX = 45_000  # above all that relay and leader allow themselves


async def join_cluster(
    config: Config,
    request: control_pb2.JoinClusterRequest,
    description: objects.NodeDescription,
    now_unix_ms: int,
) -> Identity:
    """Asks the voter at `request.address` to let this host in; when it returns, the identity is on disk.

    Raises Refused, in words, with nothing but the host's key left behind; IdentityBroken; OSError where the
    identity cannot be written.
    """
    token = tokens.parse(request.token)
    host, port = parse_place(request.address, config.join.port)
    message = _request(config, request, description)
    key = load_or_create_key(config.identity_folder)
    message.token_id, message.token_secret = token.token_id, token.secret
    message.certificate_request_pem = certificate_request_pem(key)
    reply, ca = await ask(host, port, token, message, now_unix_ms)
    try:
        certificate = certificates.load_certificate(reply.certificate_pem)
        certificates.check_issued_by(certificate, ca, now_unix_ms)
        membership = _membership(reply, message)
        cluster_key = reply.cluster_key if reply.voter else None
        identity = Identity(config.identity_folder, membership, key, certificate, ca, cluster_key)
    except ValueError as error:
        raise Refused(f"the cluster's answer cannot be used: {error}", Kind.NOT_POSSIBLE) from error
    identity.save()
    return identity


async def ask(
    host: str, port: int, token: tokens.ParsedToken, request: host_pb2.JoinRequest, now_unix_ms: int
) -> tuple[host_pb2.JoinReply, x509.Certificate]:
    """One exchange with a join port: the reply and the cluster's CA, which is the token's.

    Where `request.address` is empty it becomes this end of the connection: the address by which this host
    reaches the cluster. Raises Refused: unreachable, another cluster, refused by it.
    """
    place = place_text(host, port)
    try:
        with trio.fail_after(CONNECT_MS_MAX / 1000):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as error:
        reason = "no answer" if isinstance(error, trio.TooSlowError) else _reason(error)
        raise Refused(
            f"cannot join by {place}: {reason}. Give a voter's address and its join port, "
            "and see that no firewall is between",
            Kind.UNAVAILABLE,
        ) from error
    async with stream:
        if not request.address:
            request.address = str(stream.socket.getsockname()[0])
        try:
            with trio.fail_after(EXCHANGE_MS_MAX / 1000):
                reply, ca = await _exchange(stream, place, token, request, now_unix_ms)
        except trio.TooSlowError as error:
            raise Refused(f"{place} did not answer in time; try again", Kind.UNAVAILABLE) from error
        except (FrameError, trio.BrokenResourceError) as error:
            raise Refused(
                f"what answers at {place} does not speak as a join port, or ended the connection "
                f"({error.__cause__ or error}). Is this the join port of a voter? Else try again",
                Kind.UNAVAILABLE,
            ) from error
    if reply.error:
        raise Refused(f"the cluster did not let this host in: {reply.error}", Kind.NOT_POSSIBLE)
    return reply, ca


async def _exchange(
    stream: trio.SocketStream,
    place: str,
    token: tokens.ParsedToken,
    request: host_pb2.JoinRequest,
    now_unix_ms: int,
) -> tuple[host_pb2.JoinReply, x509.Certificate]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nothing is trusted yet: the peer is checked below, against the token, before anything is sent.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = trio.SSLStream(stream, context)
    await secure.do_handshake()
    greeting = await receive_frame(secure, host_pb2.JoinGreeting, REPLY_BYTES_MAX)
    ca = _trusted_ca(greeting, place, token)
    _require_node(secure.getpeercert(binary_form=True), ca, place, now_unix_ms)
    await send_frame(secure, request)
    reply = await receive_frame(secure, host_pb2.JoinReply, REPLY_BYTES_MAX)
    return reply, ca


def _trusted_ca(greeting: host_pb2.JoinGreeting, place: str, token: tokens.ParsedToken) -> x509.Certificate:
    try:
        ca = certificates.load_certificate(greeting.ca_certificate_pem)
    except ValueError as error:
        raise Refused(f"{place} sent no CA certificate; is this a join port?", Kind.UNAVAILABLE) from error
    if not hmac.compare_digest(certificates.ca_fingerprint(ca), token.ca_sha256):
        raise Refused(
            f"this token belongs to another cluster than the one at {place} (the CA's fingerprint differs). "
            "Nothing was sent. Make a token there with `fairway token create`, or give the right address",
            Kind.DENIED,
        )
    return ca


def _require_node(leaf_der: bytes | None, ca: x509.Certificate, place: str, now_unix_ms: int) -> None:
    """Raises Refused unless the connection's other end is a node of the CA's cluster."""
    try:
        leaf = x509.load_der_x509_certificate(leaf_der or b"")
        certificates.check_issued_by(leaf, ca, now_unix_ms)
        der = certificates.certificate_der(leaf)
        peer = certificates.parse_peer(der, certificates.cluster_id_of(der))
        if peer.kind is not certificates.PeerKind.NODE:
            raise ValueError(f"it is {peer.actor}, no node")
    except ValueError as error:
        raise Refused(
            f"{place} did not prove to be a node of the token's cluster: {error}. Nothing was sent",
            Kind.DENIED,
        ) from error


def _request(
    config: Config, request: control_pb2.JoinClusterRequest, description: objects.NodeDescription
) -> host_pb2.JoinRequest:
    name = request.node_name or config.host.name or node_name_from_hostname(description.hostname)
    address = request.advertise_address or config.host.advertise_address
    problem = (
        node_name_error(name) or labels_error(request.labels) or (unicast_address_error(address) if address else None)
    )
    if problem is not None:
        raise Refused(f"cannot join: {problem}")
    return host_pb2.JoinRequest(
        name=name,
        address=address,
        api_port=config.api.port,
        raft_port=config.raft.port,
        join_port=config.join.port,
        description=description,
        labels=request.labels,
    )


def _membership(reply: host_pb2.JoinReply, request: host_pb2.JoinRequest) -> Membership:
    nodes = tuple(known_node(node) for node in reply.nodes)
    return Membership(
        reply.cluster_id, reply.cluster_name, reply.node_id, request.name, reply.voter, request.address, nodes
    )


def known_node(node: objects.Node) -> KnownNode:
    """What a host keeps of a voter."""
    return KnownNode(node.meta.id, node.meta.name, node.address, node.api_port, node.raft_port, node.join_port)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or "it cannot be reached").lower()
