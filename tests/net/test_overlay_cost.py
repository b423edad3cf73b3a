"""What one more host costs the others: one send of a few requests, also among a thousand."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from net.addresses import tunnel_mac
from net.model import DesiredNetwork, Host
from net.namespaces import make_namespace, remove_namespace
from net.netlink import Netlink, Request
from net.overlay import OverlayDevice
from tests.net.world import CONFIG

THOUSAND = tuple(
    Host(
        f"node{number}",
        f"host-{number}",
        f"198.51.{100 + number // 250}.{number % 250 + 1}",
        f"10.{112 + number // 256}.{number % 256}.0/24",
        f"10.{112 + number // 256}.{number % 256}.1",
        tunnel_mac(f"node{number}"),
        number,
    )
    for number in range(1, 1001)
)


def test_one_more_host_among_a_thousand_is_one_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    requests: list[Request] = []
    send, ask_all = Netlink._send, Netlink.ask_all

    def counting_send(self: Netlink, data: bytes, asked: str) -> None:
        sent.append(data)
        send(self, data, asked)

    def noting_ask_all(self: Netlink, asked: list[Request]) -> object:
        requests.extend(asked)
        return ask_all(self, asked)

    def in_namespace() -> None:
        with closing(OverlayDevice("fwx0")) as overlay:
            desired = DesiredNetwork(CONFIG, THOUSAND[0], THOUSAND[:-1])
            overlay.apply(desired, compare=True)
            monkeypatch.setattr(Netlink, "_send", counting_send)
            monkeypatch.setattr(Netlink, "ask_all", noting_ask_all)
            overlay.apply(replace(desired, hosts=THOUSAND), compare=False)
            monkeypatch.undo()
            assert overlay.apply(replace(desired, hosts=THOUSAND), compare=True) == []

    path = tmp_path / "namespace"
    try:
        make_namespace(path, in_namespace)
    finally:
        remove_namespace(path)
    assert len(sent) == 1
    asked = sorted(each.asked for each in requests)
    assert sum("FDB entry" in each for each in asked) == 1
    # For each family: its neighbour, its block's route, and the way back of what came in by it (a table and its rule).
    assert len(asked) == 1 + 2 * 4, asked
