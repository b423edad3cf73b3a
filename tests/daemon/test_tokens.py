"""Join tokens: what they say, and whom they let in."""

from __future__ import annotations

import hashlib

import pytest

from daemon.errors import Refused
from daemon.identity import tokens
from daemon.ids import new_id
from proto import objects_pb2 as objects

NOW = 1_900_000_000_000
CA = hashlib.sha256(b"ca").digest()


def made(role: objects.NodeRole.ValueType = objects.NODE_ROLE_WORKER) -> tuple[objects.JoinToken, str]:
    return tokens.create(new_id(), "", role, NOW + 1000, CA)


def test_a_token_reads_back() -> None:
    token, text = made(objects.NODE_ROLE_VOTER)
    parsed = tokens.parse(f"  {text.upper()}\n")
    assert text.startswith(f"fairway-voter-{token.meta.id}-")
    assert (parsed.role, parsed.token_id, parsed.ca_sha256) == (token.role, token.meta.id, CA)
    assert hashlib.sha256(parsed.secret).digest() == token.secret_sha256
    assert tokens.check(token, parsed.secret, NOW) is None


def test_the_secret_is_in_no_repr_and_not_in_the_object() -> None:
    token, text = made()
    parsed = tokens.parse(text)
    assert repr(parsed.secret) not in repr(parsed)
    assert "secret" not in repr(parsed)
    assert parsed.secret not in token.SerializeToString()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "not a join token"),
        (lambda text: "SWMTKN-1-abc", "not a join token"),
        (lambda text: "fairway-" + "x" * 1000, "not a join token"),
        (lambda text: text.rsplit("-", 1)[0], "not complete"),
        (lambda text: text.replace("worker", "boss"), "not complete"),
        (lambda text: text[:-4], "cut short|typing mistake"),
        (lambda text: text[:50] + "u" + text[51:], "typing mistake"),
        (lambda text: text + "-x", "not complete"),
    ],
)
def test_what_is_no_token_is_refused_without_repeating_it(change: object, words: str) -> None:
    _, text = made()
    assert callable(change)
    with pytest.raises(Refused, match=words) as caught:
        tokens.parse(change(text))
    assert text.split("-")[3] not in caught.value.message


def test_who_is_let_in() -> None:
    token, text = made()
    secret = tokens.parse(text).secret
    revoked = objects.JoinToken()
    revoked.CopyFrom(token)
    revoked.revoked = True
    cases = [
        (token, secret, NOW, None),
        (token, secret, NOW + 999, None),
        (token, secret, NOW + 1000, "expired"),
        (revoked, secret, NOW, "revoked"),
        (None, secret, NOW, "not known"),
        (token, b"wrong", NOW, "not known"),
        (token, b"", NOW, "not known"),
        (revoked, b"wrong", NOW, "not known"),  # who guesses learns nothing about the token
    ]
    for stored, given, now, words in cases:
        error = tokens.check(stored, given, now)
        assert (error is None) if words is None else (error is not None and words in error)


def test_a_token_needs_a_role() -> None:
    with pytest.raises(Refused, match="voter or worker"):
        tokens.create(new_id(), "", objects.NODE_ROLE_UNSPECIFIED, NOW + 1, CA)
