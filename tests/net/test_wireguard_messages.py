"""WireGuard's two languages: generic netlink, by a second implementation and by the header's layout, and the text of
user-space devices. What a host needs of peers and routes, and how it keeps its keys."""

from __future__ import annotations

import base64
import importlib
import stat
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from net import wireguard_netlink as netlink
from net import wireguard_uapi as uapi
from net.errors import NetworkError
from net.model import DesiredNetwork, Encryption, Host
from net.netlink import Answer, attribute, nest
from net.overlay_plan import overlay_of
from net.wireguard_keys import WireGuardKeys
from net.wireguard_plan import Observed, Peer, devices_of, overhead_bytes, peer_change, remote_address, routes_of
from tests.net.world import CONFIG, HOSTS

FAMILY = 0x1C
KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
PEER = Peer(KEY, "198.51.100.7", 51871, "198.18.0.7")
PEER_IPV6 = Peer(OTHER_KEY, "2001:db8::7", 51872, "fdfa:6972:7761:7900::7")


def decoded(body: bytes) -> Any:
    """As pyroute2's own WireGuard module reads it."""
    wgmsg = importlib.import_module("pyroute2.netlink.generic.wireguard").wgmsg
    message = wgmsg(struct.pack("=IHHII", 16 + len(body), FAMILY, 0, 0, 0) + body)
    message.decode()
    return message


def key_of(peer: Any) -> bytes:
    return base64.b64decode(peer.get_attr("WGPEER_A_PUBLIC_KEY"))


@pytest.mark.parametrize("peer", [PEER, PEER_IPV6])
def test_a_peer_is_told_to_the_kernel(peer: Peer) -> None:
    (request,) = netlink.set_peers(FAMILY, "fww1", [peer], [], 25)
    message = decoded(request.body)
    assert (request.kind, message["cmd"], message["version"]) == (FAMILY, 1, 1)
    assert message.get_attr("WGDEVICE_A_IFNAME") == "fww1"
    assert message.get_attr("WGDEVICE_A_PRIVATE_KEY") is None
    (told,) = message.get_attr("WGDEVICE_A_PEERS")
    assert key_of(told) == peer.public_key
    assert told.get_attr("WGPEER_A_FLAGS") == 2  # WGPEER_F_REPLACE_ALLOWEDIPS
    endpoint = told.get_attr("WGPEER_A_ENDPOINT")
    assert (endpoint["addr"], endpoint["port"]) == (peer.endpoint, peer.port)
    assert told.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    (allowed,) = told.get_attr("WGPEER_A_ALLOWEDIPS")
    assert allowed["addr"] == f"{peer.inner}/{128 if ':' in peer.inner else 32}"


def test_identity_and_removal_are_laid_out_as_the_kernels_header_says() -> None:
    body = netlink.set_identity(FAMILY, "fww0", KEY, 51871).body
    assert body == (
        b"\x01\x01\x00\x00"  # WG_CMD_SET_DEVICE, version 1
        + b"\x09\x00\x02\x00fww0\x00\x00\x00\x00"  # WGDEVICE_A_IFNAME
        + b"\x24\x00\x03\x00" + KEY  # WGDEVICE_A_PRIVATE_KEY
        + b"\x06\x00\x06\x00" + struct.pack("=H", 51871) + b"\x00\x00"  # WGDEVICE_A_LISTEN_PORT
    )  # fmt: skip
    (request,) = netlink.set_peers(FAMILY, "fww0", [], [KEY])
    (told,) = decoded(request.body).get_attr("WGDEVICE_A_PEERS")
    assert told.get_attr("WGPEER_A_FLAGS") == 1  # WGPEER_F_REMOVE_ME


@pytest.mark.parametrize(("peers", "messages"), [(0, 0), (1, 1), (200, 1), (201, 2), (999, 5)])
def test_a_thousand_peers_fit_into_attributes_of_64_kilobytes(peers: int, messages: int) -> None:
    put = [PEER_IPV6._replace(public_key=number.to_bytes(32)) for number in range(peers)]
    requests = netlink.set_peers(FAMILY, "fww1", put, [])
    assert len(requests) == messages
    assert all(len(request.body) < 60_000 for request in requests)
    told = [each for request in requests for each in decoded(request.body).get_attr("WGDEVICE_A_PEERS")]
    assert [key_of(each) for each in told] == [peer.public_key for peer in put]


def test_what_the_kernel_lists_is_read_back_also_in_pieces() -> None:
    def answer(*parts: bytes) -> Answer:
        return Answer(FAMILY, b"\x00\x01\x00\x00" + b"".join(parts))

    both = [netlink.set_peers(FAMILY, "fww1", [peer], [])[0].body[16:] for peer in (PEER, PEER_IPV6)]
    first = answer(attribute(3, KEY), attribute(6, struct.pack("=H", 51871)), both[0])
    # A peer's allowed addresses may come in a message after the peer.
    piece = answer(nest(8, nest(0, attribute(1, OTHER_KEY))))
    observed = netlink.read_device([first, piece, answer(both[1])])
    assert observed.private_key == KEY and observed.port == 51871
    assert observed.peers[KEY] == PEER
    assert observed.peers[OTHER_KEY].inner == PEER_IPV6.inner
    assert netlink.read_device([answer(attribute(3, bytes(32)))]) == Observed(b"", 0, {})


def test_the_family_is_asked_for_by_name() -> None:
    assert netlink.find_family().body == b"\x03\x01\x00\x00" + b"\x0e\x00\x02\x00wireguard\x00\x00\x00"
    assert netlink.read_family(Answer(0x10, b"\x01\x02\x00\x00" + attribute(1, struct.pack("=H", 33)))) == 33


def test_the_text_of_a_user_space_device() -> None:
    request = uapi.set_request(private_key=KEY, port=51871, put=[PEER_IPV6], removed=[KEY], keepalive_seconds=0)
    assert request.decode().splitlines() == [
        "set=1",
        f"private_key={KEY.hex()}",
        "listen_port=51871",
        f"public_key={KEY.hex()}",
        "remove=true",
        f"public_key={OTHER_KEY.hex()}",
        "endpoint=[2001:db8::7]:51872",
        "replace_allowed_ips=true",
        "allowed_ip=fdfa:6972:7761:7900::7/128",
        "persistent_keepalive_interval=0",
        "",
    ]
    assert request.endswith(b"\n\n")


def test_the_answer_of_a_user_space_device() -> None:
    lines = [
        f"private_key={KEY.hex()}",
        "listen_port=51871",
        f"public_key={OTHER_KEY.hex()}",
        "preshared_key=" + "0" * 64,
        "endpoint=[2001:db8::7]:51872",
        "last_handshake_time_sec=0",
        "allowed_ip=fdfa:6972:7761:7900::7/128",
        f"public_key={KEY.hex()}",
        "allowed_ip=198.18.0.7/32",
        "errno=0",
        "",
        "",
    ]
    observed = uapi.read_device("\n".join(lines).encode())
    assert observed == Observed(KEY, 51871, {OTHER_KEY: PEER_IPV6, KEY: PEER._replace(endpoint="", port=0)})
    assert uapi.read_errno(b"a=b\nerrno=0\n\n") == 0
    assert uapi.read_errno(b"errno=-22\n\n") == 22
    with pytest.raises(ValueError):
        uapi.read_errno(b"")


# ---- what a host needs -----------------------------------------------------------------------------------


def desired(sending: int, *receiving: int, ipv6: bool = False, hosts: int = 3) -> DesiredNetwork:
    def host(each: Host) -> Host:
        keys = tuple((epoch, bytes([each.ordinal, epoch]) * 16) for epoch in receiving if epoch)
        return replace(each, keys=keys, address=f"2001:db8::{each.ordinal}" if ipv6 else each.address)

    known = [host(each) for each in HOSTS]
    for number in range(4, hosts + 1):
        name = f"node{number}"
        known.append(
            replace(
                known[1],
                node_id=name,
                ordinal=number,
                block=f"10.113.{number % 256}.0/24",
                tunnel_address=f"10.113.{number % 256}.{number // 256 + 1}",
                tunnel_mac=f"02:00:00:00:{number // 256:02x}:{number % 256:02x}",
                keys=((1, number.to_bytes(32)),),
            )
        )
    return DesiredNetwork(
        replace(CONFIG, encryption=Encryption(sending, receiving), ipv6_prefix=""), known[0], tuple(known)
    )


def test_in_the_clear_there_is_nothing() -> None:
    plain = desired(0, 0)
    assert devices_of(plain, "fw") == [] and routes_of(plain, 9) == set() and overhead_bytes(plain) == 0
    assert remote_address(plain, HOSTS[1]) == HOSTS[1].address


@pytest.mark.parametrize(
    ("ipv6", "inner", "overhead"), [(False, "198.18.0.2", 60), (True, "fdfa:6972:7761:7900::2", 80)]
)
def test_two_epochs_stand_side_by_side_and_one_is_sent_by(ipv6: bool, inner: str, overhead: int) -> None:
    both = desired(1, 1, 2, ipv6=ipv6)
    first, second = devices_of(both, "fw")
    assert (first.name, first.port, second.name, second.port) == ("fww1", 51872, "fww0", 51871)
    assert first.inner == second.inner
    for device in (first, second):
        assert {peer.inner for peer in device.peers.values()} == {inner, inner[:-1] + "3"}
        assert all(key == bytes([int(peer.inner[-1]), device.epoch]) * 16 for key, peer in device.peers.items())
    assert remote_address(both, both.hosts[1]) == inner
    assert overhead_bytes(both) == overhead


def test_what_the_device_does_not_take_goes_nowhere() -> None:
    """The more special routes go with their device; the one that leads nowhere stays."""
    without = {route.destination: route.device for route in routes_of(desired(1, 1), 0)}
    assert without == {"198.18.0.0/16": 0}
    present = {route.destination: route.device for route in routes_of(desired(1, 1), 9)}
    assert present == {"198.18.0.0/16": 0, "198.18.0.0/17": 9, "198.18.128.0/17": 9}


def test_a_host_more_among_a_thousand_is_one_peer_and_one_fdb_entry_more() -> None:
    before, after = desired(1, 1, hosts=999), desired(1, 1, hosts=1000)
    (old,), (new,) = devices_of(before, "fw"), devices_of(after, "fw")
    change = peer_change(new.peers, old.peers, old.peers)
    assert [peer.inner for peer in change.put] == ["198.18.3.232"] and change.removed == []
    old_overlay, new_overlay = overlay_of(before, 7, 9), overlay_of(after, 7, 9)
    assert len(new_overlay.forwardings - old_overlay.forwardings) == 1
    assert len(new_overlay.neighbours - old_overlay.neighbours) == 1
    assert {route.table == 254 for route in new_overlay.routes - old_overlay.routes} == {True, False}
    assert len(new_overlay.routes - old_overlay.routes) == 2  # its block, and answers through it


def test_a_peer_whose_packets_come_from_elsewhere_is_left_alone_until_its_host_moves() -> None:
    wanted = {KEY: PEER}
    roamed = {KEY: PEER._replace(endpoint="198.51.100.99")}
    assert peer_change(wanted, roamed, wanted) == ([], [])
    moved = {KEY: PEER._replace(endpoint="198.51.100.8")}
    assert peer_change(moved, roamed, wanted).put == [moved[KEY]]
    assert peer_change({}, roamed, wanted).removed == [KEY]
    assert peer_change(wanted, {}, wanted).put == [PEER]


def test_keys_are_made_once_kept_from_others_and_forgotten_with_their_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "identity/wireguard"
    keys = WireGuardKeys(folder)
    first = keys.private(1)
    assert len(first) == 32 and keys.private(1) == first != keys.private(2)
    assert WireGuardKeys(folder).public(1) == keys.public(1), "a restart changes nothing"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys.keep_only((2,))
    assert [path.name for path in folder.iterdir()] == ["epoch-2.key"]
    (folder / "epoch-2.key").write_bytes(b"torn")
    assert len(WireGuardKeys(folder).private(2)) == 32


def test_a_folder_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("not a folder")
    with pytest.raises(NetworkError, match="keep a WireGuard key in"):
        WireGuardKeys(tmp_path / "identity").private(1)
