"""`net encryption status`, `set` and `rotate`: what is asked, waited for and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cli.commands import encryption
from cli.failure import EXIT_OK, EXIT_TIMED_OUT, EXIT_USAGE
from proto import control_pb2, objects_pb2
from tests.cli.control_server import ControlServer

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "POLL_SECONDS", 0.01)


def reply(sending: int, settled: bool, summary: str, *epochs: int) -> control_pb2.EncryptionReply:
    return control_pb2.EncryptionReply(
        wanted=objects_pb2.ENCRYPTION_WIREGUARD,
        state=objects_pb2.EncryptionState(sending=sending, receiving=epochs, sending_since_unix_ms=1),
        key_age_ms_max=604_800_000,
        settled=settled,
        summary=summary,
        hosts=[
            control_pb2.EncryptionHost(
                node_id="n1", name="host-1", state=objects_pb2.NODE_STATE_READY, epochs=epochs, current=settled
            )
        ],
    )


def answers(server: ControlServer, *replies: control_pb2.EncryptionReply) -> None:
    """To GetEncryption, one after the other, then the last for ever."""
    left = list(replies)
    server.on("GetEncryption", lambda request, context: left.pop(0) if len(left) > 1 else left[0])


def test_status_shows_where_the_cluster_is(server: ControlServer, fairway: Run) -> None:
    answers(server, reply(3, True, "hosts send encrypted by the keys of epoch 3", 3))
    shown = fairway("net", "encryption", "status")
    assert shown.code == EXIT_OK
    assert "Hosts send encrypted by the keys of epoch 3." in shown.out
    assert "replaced after 7d" in shown.out and "host-1" in shown.out
    found = json.loads(fairway("net", "encryption", "status", "-o", "json").out)
    assert found["state"]["sending"] == 3 and found["wanted"] == "wireguard"


def test_set_waits_until_it_holds_and_says_each_step_once(server: ControlServer, fairway: Run) -> None:
    server.on("UpdateEncryption", reply(0, False, "next they take it", 0))
    answers(
        server,
        reply(0, False, "next they take it", 0),
        reply(1, False, "they still take the clear", 0, 1),
        reply(1, True, "hosts send encrypted", 1),
    )
    shown = fairway("net", "encryption", "set", "wireguard", "--key-age", "24h")
    assert shown.code == EXIT_OK
    assert shown.err.count("Next they take it.") == 1 and "They still take the clear." in shown.err
    (request,) = server.asked("UpdateEncryption")
    assert (request.encryption, request.key_age_ms_max) == (objects_pb2.ENCRYPTION_WIREGUARD, 86_400_000)


def test_a_change_that_takes_too_long_says_what_it_waits_for(server: ControlServer, fairway: Run) -> None:
    server.on("UpdateEncryption", reply(0, False, "host-2 cannot: no WireGuard", 0))
    answers(server, reply(0, False, "host-2 cannot: no WireGuard", 0))
    shown = fairway("net", "encryption", "set", "wireguard", "--timeout", "1s")
    assert shown.code == EXIT_TIMED_OUT
    assert "host-2 cannot: no WireGuard" in shown.err and "it goes on" in shown.err
    assert fairway("net", "encryption", "set", "wireguard", "--detach").code == EXIT_OK


def test_rotate_waits_for_another_epoch(server: ControlServer, fairway: Run) -> None:
    server.on("UpdateEncryption", reply(3, True, "hosts send", 3))
    answers(server, reply(3, True, "hosts send", 3), reply(3, True, "hosts send", 3), reply(4, True, "new keys", 4))
    shown = fairway("net", "encryption", "rotate")
    assert shown.code == EXIT_OK and "New keys." in shown.out
    assert server.asked("UpdateEncryption")[0].rotate


def test_an_encryption_that_there_is_not_is_wrong_usage(fairway: Run) -> None:
    assert fairway("net", "encryption", "set", "rot13").code == EXIT_USAGE
