"""Whether another machine on the link has this host's own address: an ARP probe (RFC 5227, 2.1.1), IPv4 only."""

from __future__ import annotations

import socket
import struct
import time

from net import link_messages as links
from net import tunnel_messages as tunnels
from net.address_messages import list_addresses, read_address
from net.netlink import PROTOCOL_ROUTE, Netlink
from net.route_messages import pack_mac

ANSWER_SECONDS_MAX = 0.3
ATTEMPTS = 2
_ETHERTYPE_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_FRAMES_MAX = 256


def interface_of(address: str) -> tuple[str, str]:
    """(name, MAC) of the interface that has an address; two empty words where none has."""
    with Netlink(PROTOCOL_ROUTE) as netlink:
        for each in netlink.dump(list_addresses()):
            found = read_address(each)
            if found is not None and found.address == address:
                answer = netlink.get(links.get_link_by_index(found.device))
                if answer is not None:
                    link = tunnels.read_link(answer)
                    return link.name, link.mac
    return "", ""


def who_else_has(address: str) -> str:
    """The MAC of another machine that answers for `address`, or an empty word. Blocking, under a second."""
    name, mac = interface_of(address)
    if ":" in address or not name or not mac or mac == "00:00:00:00:00:00":
        return ""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_ARP)) as packets:
            packets.bind((name, _ETHERTYPE_ARP))
            for _ in range(ATTEMPTS):
                packets.send(probe(mac, address))
                found = _answer(packets, mac, address)
                if found:
                    return found
    except OSError:
        pass  # no Ethernet: nobody can answer
    return ""


def probe(mac: str, address: str) -> bytes:
    """An ARP request with no sender address, so that nobody learns from it."""
    own, nobody = pack_mac(mac), bytes(6)
    body = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, own, bytes(4), nobody, socket.inet_aton(address))
    return _ETHERNET.pack(b"\xff" * 6, own, _ETHERTYPE_ARP) + body


def _answer(packets: socket.socket, mac: str, address: str) -> str:
    until = time.monotonic() + ANSWER_SECONDS_MAX
    for _ in range(_FRAMES_MAX):
        left = until - time.monotonic()
        if left <= 0:
            break
        packets.settimeout(left)
        try:
            frame = packets.recv(128)
        except TimeoutError:
            break
        if len(frame) < _ETHERNET.size + _ARP.size:
            continue
        _, _, _, _, kind, sender, sender_address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
        if kind == _REPLY and sender_address == socket.inet_aton(address) and sender != pack_mac(mac):
            return str(sender.hex(":"))
    return ""
