"""WireGuard's text protocol for user-space devices, both ways; pure.

Format: https://www.wireguard.com/xplatform/#configuration-protocol (keys in hexadecimal, lines of key=value, an empty
line at the end).
"""

from __future__ import annotations

from collections.abc import Iterable

from net.wireguard_plan import Observed, Peer

GET = b"get=1\n\n"


def set_request(
    *,
    private_key: bytes = b"",
    port: int = 0,
    put: Iterable[Peer] = (),
    removed: Iterable[bytes] = (),
    keepalive_seconds: int = 0,
) -> bytes:
    """Leaves what is not named as it is; `keepalive_seconds` (0: none) is for the peers of `put`."""
    lines = ["set=1"]
    if private_key:
        lines.append(f"private_key={private_key.hex()}")
    if port:
        lines.append(f"listen_port={port}")
    for key in removed:
        lines += [f"public_key={key.hex()}", "remove=true"]
    for peer in put:
        bits = 128 if ":" in peer.inner else 32
        lines += [
            f"public_key={peer.public_key.hex()}",
            f"endpoint={place_text(peer.endpoint, peer.port)}",
            "replace_allowed_ips=true",
            f"allowed_ip={peer.inner}/{bits}",
            f"persistent_keepalive_interval={keepalive_seconds}",
        ]
    return ("\n".join(lines) + "\n\n").encode()


def read_errno(answer: bytes) -> int:
    """The errno (0: none) that ends an answer; ValueError where none does."""
    line = answer.decode().rstrip("\n").rpartition("\n")[2]
    name, _, value = line.partition("=")
    if name != "errno":
        raise ValueError(f"an answer without errno: {line!r}")
    return abs(int(value))


def read_device(answer: bytes) -> Observed:
    """What a device answers to GET. Of several allowed addresses the first is taken."""
    private_key, port = b"", 0
    peers: dict[bytes, Peer] = {}
    key = b""
    for line in answer.decode().splitlines():
        name, _, value = line.partition("=")
        if name == "public_key":
            key = bytes.fromhex(value)
            peers[key] = Peer(key, "", 0, "")
        elif name == "private_key":
            private_key = bytes.fromhex(value)
        elif name == "listen_port":
            port = int(value)
        elif name == "endpoint":
            address, _, number = value.rpartition(":")
            peers[key] = peers[key]._replace(endpoint=address.strip("[]"), port=int(number))
        elif name == "allowed_ip" and not peers[key].inner:
            peers[key] = peers[key]._replace(inner=value.partition("/")[0])
    return Observed(private_key, port, peers)


def place_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
