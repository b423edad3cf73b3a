"""The DNS codec: what it writes it reads, and no bytes make it fail in another way than it says."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net import dns_message as message

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@given(NAME, st.integers(0, 65535), st.integers(1, 255))
def test_a_query_survives_the_wire(name: str, identifier: int, kind: int) -> None:
    query = message.read_query(message.write_query(identifier, name, kind))
    assert (query.identifier, query.name, query.kind) == (identifier, name, kind)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_called_malformed(data: bytes) -> None:
    try:
        message.read_query(data)
    except message.MalformedMessage:
        message.write_error(data, message.FORMAT_ERROR)
    message.lifetime_seconds(data, 10)


@given(NAME, st.binary(max_size=60), st.integers(0, 80))
def test_damaged_queries_are_read_or_called_malformed(name: str, noise: bytes, place: int) -> None:
    data = bytearray(message.write_query(1, name, 1))
    data[place : place + len(noise)] = noise
    with contextlib.suppress(message.MalformedMessage):
        message.read_query(bytes(data))


def test_a_pointer_to_itself_does_not_hang() -> None:
    data = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c" + b"\0\x01\0\x01"
    with pytest.raises(message.MalformedMessage):
        message.read_query(data)


def test_the_asker_gets_its_letter_case_back() -> None:
    query = message.read_query(message.write_query(7, "WeB.ShOp", 1))
    answer = message.write_response(query, 0, [message.address_record("10.1.2.3")], 5)
    assert query.name == "web.shop"
    assert b"WeB\x04ShOp" in answer
    assert answer.endswith(b"\0\x04\x0a\x01\x02\x03")
    assert message.lifetime_seconds(answer, 60) == 5
    assert message.is_response_to(query, answer, 7)
    assert not message.is_response_to(query, answer, 8)


@pytest.mark.parametrize("name", ["a" * 64, ".".join(["abcdefgh"] * 40), "a..b"])
def test_names_that_dns_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"label|longer"):
        message.write_name(name)
