"""WireGuard in the kernel, over generic netlink.

Formats: the kernel's `include/uapi/linux/{genetlink,wireguard}.h`. Packed by hand: a host has a thousand peers.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence

from net import link_messages as links
from net.errors import KernelRefused, NetworkError
from net.netlink import (
    CREATE,
    EXCLUSIVE,
    PROTOCOL_ROUTE,
    Answer,
    Netlink,
    Request,
    attribute,
    attribute_map,
    attributes,
    nest,
    text,
    u8,
    u32,
)
from net.wireguard_plan import Observed, Peer

PROTOCOL_GENERIC = 16
PEERS_A_MESSAGE_MAX = 200  # of at most 140 bytes each: one attribute holds 64 KiB

_HEADER = struct.Struct("=BBxx")  # genlmsghdr
_LINK_HEADER_BYTES = 16
_ID_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_FAMILY, _VERSION = "wireguard", 1
_GET_DEVICE, _SET_DEVICE = 0, 1
_IFNAME, _PRIVATE_KEY, _LISTEN_PORT, _PEERS = 2, 3, 6, 8
_PEER_PUBLIC_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_ALLOWED_IPS = 1, 3, 4, 5, 9
_PEER_REMOVE, _PEER_REPLACE_ALLOWED_IPS = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_BITS = 1, 2, 3


def new_link(name: str) -> Request:
    body = bytes(_LINK_HEADER_BYTES) + text(3, name) + nest(18, text(1, "wireguard"))
    return Request(links.NEWLINK, CREATE | EXCLUSIVE, body, f"make WireGuard device {name}")


def find_family() -> Request:
    return Request(_ID_CONTROL, 0, _HEADER.pack(_GET_FAMILY, 1) + text(_FAMILY_NAME, _FAMILY), "look for WireGuard")


def read_family(answer: Answer) -> int:
    """The number that the kernel gave to WireGuard's messages."""
    number: int = struct.unpack("=H", attribute_map(answer.body, _HEADER.size)[_FAMILY_ID])[0]
    return number


def set_identity(family: int, name: str, private_key: bytes, port: int) -> Request:
    body = _head(_SET_DEVICE, name) + attribute(_PRIVATE_KEY, private_key) + _u16(_LISTEN_PORT, port)
    return Request(family, 0, body, f"give WireGuard device {name} its key and port {port}")


def set_peers(
    family: int, name: str, put: Iterable[Peer], removed: Iterable[bytes], keepalive_seconds: int = 0
) -> list[Request]:
    """As many messages as it takes, each of at most PEERS_A_MESSAGE_MAX peers."""
    packed = [_removed(key) for key in removed] + [_peer(peer, keepalive_seconds) for peer in put]
    return [
        Request(
            family,
            0,
            _head(_SET_DEVICE, name) + nest(_PEERS, *packed[start : start + PEERS_A_MESSAGE_MAX]),
            f"tell WireGuard device {name} its peers",
        )
        for start in range(0, len(packed), PEERS_A_MESSAGE_MAX)
    ]


def get_device(family: int, name: str) -> Request:
    return Request(family, 0, _head(_GET_DEVICE, name), f"read WireGuard device {name}")


def read_device(answers: Sequence[Answer]) -> Observed:
    """A long list of peers comes in several messages, and one peer may be spread over two."""
    private_key, port = b"", 0
    peers: dict[bytes, Peer] = {}
    for answer in answers:
        found = attribute_map(answer.body, _HEADER.size)
        private_key = found.get(_PRIVATE_KEY, private_key)
        if _LISTEN_PORT in found:
            port = struct.unpack("=H", found[_LISTEN_PORT])[0]
        for _, data in attributes(found.get(_PEERS, b"")):
            peer = _read_peer(attribute_map(data))
            known = peers.get(peer.public_key)
            if known is not None:
                peer = known._replace(inner=known.inner or peer.inner)
            peers[peer.public_key] = peer
    return Observed(private_key if any(private_key) else b"", port, peers)


class InKernel:
    """Blocking; not safe for several threads at once. NetworkError where the kernel has no WireGuard."""

    kind = "wireguard"

    def __init__(self) -> None:
        self._route = Netlink(PROTOCOL_ROUTE)
        self._generic: Netlink | None = None
        self._family = 0

    def close(self) -> None:
        self._route.close()
        if self._generic is not None:
            self._generic.close()

    def make(self, name: str) -> None:
        """Raises KernelRefused with EOPNOTSUPP where this kernel has no WireGuard."""
        self._route.ask(new_link(name))

    def observe(self, name: str) -> Observed | None:
        try:
            return read_device(self._open().dump(get_device(self._family, name)))
        except KernelRefused as error:
            if error.code in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                return None
            raise

    def set_identity(self, name: str, private_key: bytes, port: int) -> None:
        self._open().ask(set_identity(self._family, name, private_key, port))

    def set_peers(self, name: str, put: Iterable[Peer], removed: Iterable[bytes], keepalive_seconds: int = 0) -> None:
        """See UserSpace."""
        self._ask_all(set_peers(self._family_number(), name, put, removed, keepalive_seconds))

    def came_up(self, name: str, port: int) -> None:
        """Nothing is left to do."""

    def remove(self, name: str) -> None:
        answer = self._route.get(links.get_link(name))
        if answer is not None:
            self._route.ask(links.delete_link(links.read_link(answer).number, name))

    def _family_number(self) -> int:
        self._open()
        return self._family

    def _open(self) -> Netlink:
        if self._generic is None:
            generic = Netlink(PROTOCOL_GENERIC)
            answer = generic.get(find_family())
            if answer is None:
                generic.close()
                raise KernelRefused("look for WireGuard", errno.EOPNOTSUPP)
            self._generic, self._family = generic, read_family(answer)
        return self._generic

    def _ask_all(self, requests: Sequence[Request]) -> None:
        for _, error in self._open().ask_all(requests):
            raise NetworkError(str(error)) from error


def _head(command: int, name: str) -> bytes:
    return _HEADER.pack(command, _VERSION) + text(_IFNAME, name)


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def _removed(key: bytes) -> bytes:
    return nest(0, attribute(_PEER_PUBLIC_KEY, key), u32(_PEER_FLAGS, _PEER_REMOVE))


def _peer(peer: Peer, keepalive_seconds: int) -> bytes:
    parts = [
        attribute(_PEER_PUBLIC_KEY, peer.public_key),
        u32(_PEER_FLAGS, _PEER_REPLACE_ALLOWED_IPS),
        attribute(_PEER_ENDPOINT, _socket_address(peer.endpoint, peer.port)),
        _u16(_PEER_KEEPALIVE, keepalive_seconds),
    ]
    family = socket.AF_INET6 if ":" in peer.inner else socket.AF_INET
    packed = socket.inet_pton(family, peer.inner)
    allowed = (_u16(_ALLOWED_FAMILY, family), attribute(_ALLOWED_ADDRESS, packed), u8(_ALLOWED_BITS, 8 * len(packed)))
    return nest(0, *parts, nest(_PEER_ALLOWED_IPS, nest(0, *allowed)))


def _socket_address(address: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI16s", port, 0, packed) + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, socket.inet_aton(address))


def _read_peer(found: dict[int, bytes]) -> Peer:
    endpoint, port, inner = "", 0, ""
    data = found.get(_PEER_ENDPOINT, b"")
    if len(data) >= 8:
        family, port = struct.unpack_from("=H", data)[0], struct.unpack_from(">H", data, 2)[0]
        part = data[8:24] if family == socket.AF_INET6 else data[4:8]
        endpoint = socket.inet_ntop(family, part)
    for _, allowed in attributes(found.get(_PEER_ALLOWED_IPS, b"")):
        fields = attribute_map(allowed)
        inner = socket.inet_ntop(struct.unpack("=H", fields[_ALLOWED_FAMILY])[0], fields[_ALLOWED_ADDRESS])
        break
    return Peer(found[_PEER_PUBLIC_KEY], endpoint, port, inner)
