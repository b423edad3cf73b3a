"""The DNS codec: what it writes it reads, and no bytes make it fail in another way than it says."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net import dns_message as message
from net import dns_response as responses
from net.dns_message import Query, Record

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
QUESTION = message.write_name("web.shop") + b"\0\x01\0\x01"


def asked(name: str = "web.shop", kind: int = message.TYPE_A, **settings: int) -> Query:
    return message.read_query(message.write_query(7, name, kind, **settings))  # type: ignore[arg-type]


@given(NAME, st.integers(0, 65535), st.integers(1, 255), st.integers(0, 65535), st.booleans())
def test_a_query_survives_the_wire(name: str, identifier: int, kind: int, size: int, dnssec_ok: bool) -> None:
    query = message.read_query(message.write_query(identifier, name, kind, udp_bytes_max=size, dnssec_ok=dnssec_ok))
    assert (query.identifier, query.name, query.kind, query.edns) == (identifier, name, kind, size > 0)
    assert 512 <= query.udp_bytes_max <= message.UDP_BYTES_OURS
    assert query.dnssec_ok == (dnssec_ok and size > 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_called_malformed(data: bytes) -> None:
    try:
        message.read_query(data)
    except message.MalformedMessage:
        message.write_error(data, message.FORMAT_ERROR)
    with contextlib.suppress(message.MalformedMessage):
        responses.read_response(data, 1, b"")


@given(NAME, st.binary(max_size=60), st.integers(0, 80))
def test_damaged_queries_are_read_or_called_malformed(name: str, noise: bytes, place: int) -> None:
    data = bytearray(message.write_query(1, name, 1, udp_bytes_max=1232))
    data[place : place + len(noise)] = noise
    with contextlib.suppress(message.MalformedMessage):
        message.read_query(bytes(data))


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 100))
def test_damaged_responses_are_read_or_called_malformed(noise: bytes, place: int, age: int) -> None:
    data = bytearray(response_with(Record(1, b"1234", 60), authority=[message.authority_record("shop", 5)]))
    data[place : place + len(noise)] = noise
    with contextlib.suppress(message.MalformedMessage):
        response = responses.read_response(bytes(data), 7, QUESTION)
        if response is not None:
            responses.write_answer(asked(), response, age)


def response_with(*records: Record, code: int = 0, authority: list[Record] | None = None) -> bytes:
    return message.write_response(asked(udp_bytes_max=1232), code, records, authority or [])


def lifetime(data: bytes) -> int:
    response = responses.read_response(data, 7, QUESTION)
    assert response is not None
    return response.lifetime_seconds


def test_a_pointer_to_itself_does_not_hang() -> None:
    data = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c" + b"\0\x01\0\x01"
    with pytest.raises(message.MalformedMessage):
        message.read_query(data)


def test_a_dot_within_a_label_is_no_border() -> None:
    data = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x08web.shop\0" + b"\0\x01\0\x01"
    assert message.read_query(data).name == "web\\.shop"


@pytest.mark.parametrize("count", [0, 2])
def test_one_question_a_query(count: int) -> None:
    data = struct.pack(">HHHHHH", 1, 0x100, count, 0, 0, 0) + QUESTION * count
    with pytest.raises(message.MalformedMessage):
        message.read_query(data)


def test_two_edns_records_are_malformed() -> None:
    data = bytearray(message.write_query(1, "web", 1, udp_bytes_max=1232) + message.option_record(1232, False))
    data[11] = 2
    with pytest.raises(message.MalformedMessage):
        message.read_query(bytes(data))


def test_the_asker_gets_its_letter_case_back() -> None:
    query = message.read_query(message.write_query(7, "WeB.ShOp", 1))
    answer = message.write_response(query, 0, [message.address_record("10.1.2.3", 5)])
    assert query.name == "web.shop"
    assert b"WeB\x04ShOp" in answer
    assert answer.endswith(b"\0\x04\x0a\x01\x02\x03")


@pytest.mark.parametrize("name", ["a" * 64, ".".join(["abcdefgh"] * 40), "a..b"])
def test_names_that_dns_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"label|longer"):
        message.write_name(name)


def test_a_response_must_answer_the_question() -> None:
    data = response_with(message.address_record("10.1.2.3", 5))
    assert responses.read_response(data, 7, QUESTION) is not None
    assert responses.read_response(data, 8, QUESTION) is None
    assert responses.read_response(data, 7, message.write_name("web.shoq") + QUESTION[-4:]) is None
    assert responses.read_response(data, 7, QUESTION[:-4] + b"\0\x1c\0\x01") is None
    assert responses.read_response(message.write_query(7, "web.shop", 1), 7, QUESTION) is None
    assert responses.read_response(data, 7, QUESTION.upper()) is not None
    assert not responses.same_case(data, b"\x03WEB" + QUESTION[4:])


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (response_with(Record(1, b"1234", 60), Record(1, b"1234", 30)), 30),
        (response_with(Record(1, b"1234", 10**6)), responses.LIFETIME_SECONDS_MAX),
        (response_with(Record(1, b"1234", 0x80000000)), 0),  # RFC 2181, 8
        (response_with(authority=[message.authority_record("shop", 40)]), 40),
        (response_with(code=3, authority=[message.authority_record("shop", 40)]), 40),
        (response_with(code=3, authority=[message.authority_record("shop", 10**6)]), responses.NEGATIVE_SECONDS_MAX),
        (response_with(), 0),  # RFC 2308, 5: without an SOA it is not kept
        (response_with(code=3), 0),
        (response_with(Record(1, b"1234", 60), code=2), 0),
        (message.truncated(asked()), 0),
    ],
)
def test_how_long_a_response_may_be_kept(data: bytes, seconds: int) -> None:
    assert lifetime(data) == seconds


def test_the_minimum_of_the_authority_counts_where_it_is_less() -> None:
    record = message.authority_record("shop", 7)
    data = response_with(code=3, authority=[Record(record.kind, record.data, 500, record.owner)])
    assert lifetime(data) == 7


def test_what_is_kept_grows_older_and_loses_what_was_between_the_servers() -> None:
    data = response_with(message.address_record("10.1.2.3", 60), message.address_record("10.1.2.4", 20))
    response = responses.read_response(data, 7, QUESTION)
    assert response is not None
    plain = message.read_query(message.write_query(9, "WEB.shop", 1))
    answer = responses.write_answer(plain, response, 25)
    again = responses.read_response(answer, 9, plain.question)
    assert again is not None
    assert [seconds for _, seconds in again.ttls] == [35, 0]
    assert b"WEB\x04shop" in answer
    assert answer[11] == 0, "EDNS is not for an asker without it"
    assert responses.write_answer(asked(udp_bytes_max=999), response)[11] == 1
    stale = responses.read_response(responses.write_answer(plain, response, ttl_seconds=30), 9, plain.question)
    assert stale is not None
    assert [seconds for _, seconds in stale.ttls] == [30, 30]


def test_the_extended_response_code_is_read_and_written() -> None:
    query = asked(udp_bytes_max=1232)
    data = message.write_response(query, message.BAD_VERSION)
    assert message.response_code(data) == 0
    response = responses.read_response(data, 7, query.question)
    assert response is not None
    assert response.code == message.BAD_VERSION
