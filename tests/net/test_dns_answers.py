"""The packets that an asker gets for names of ours."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from net import dns_message as message
from net.desired_changes import DesiredIndex
from net.dns_answers import ADDRESSES_PER_ANSWER_MAX, Answers, Packets, Passed
from net.dns_limits import (
    MAKING_POINTS,
    MAKING_SECONDS_MAX,
    POINTS_MAX,
    POINTS_PER_WINDOW,
    WINDOW_SECONDS,
    AskerState,
    Limits,
)
from net.model import DesiredNetwork, Frontend, LocalTask
from net.policy import Peer, Policy, PolicyRule, Selector
from tests.net.test_dns_names import BACK, BLOG, DESIRED, PORTS, STRANGER, WEB
from tests.net.world import endpoint

A, AAAA, SRV, PTR, SOA, ANY, HTTPS = 1, 28, 33, 12, 6, 255, 65
CROWD = 40
CROWDED = replace(
    DESIRED,
    frontends=(*DESIRED.frontends, Frontend("id-crowd", "crowd", "shop", "default", "", PORTS, ("A",))),
    endpoints=(
        *DESIRED.endpoints,
        *(endpoint("crowd", slot, 1, f"10.112.1.{100 + slot}", "A") for slot in range(10, 10 + CROWD)),
    ),
)


@dataclass
class Read:
    """A response, taken apart."""

    code: int
    flags: int
    answers: list[tuple[int, int, bytes]]  # type, TTL, data
    authority: list[tuple[str, int, int]]  # owner, type, TTL
    additional: list[tuple[str, int]]  # owner, type
    size: int

    @property
    def addresses(self) -> list[str]:
        families = {A: socket.AF_INET, AAAA: socket.AF_INET6}
        return [socket.inet_ntop(families[kind], data) for kind, _, data in self.answers if kind in families]


def read(data: bytes) -> Read:
    _, flags, questions, answers, authorities, additionals = message.HEADER.unpack_from(data)
    assert flags & message.RESPONSE
    assert questions == 1
    offset = message.skip_name(data, 12) + 4
    records = []
    for _ in range(answers + authorities + additionals):
        owner, after = message.read_name(data, offset)
        offset, kind, _, ttl = message.skip_record(data, offset)
        records.append((owner, kind, ttl, data[after + 10 : offset]))
    assert offset == len(data)
    return Read(
        flags & 15,
        flags,
        [(kind, ttl, content) for _, kind, ttl, content in records[:answers]],
        [(owner, kind, ttl) for owner, kind, ttl, _ in records[answers : answers + authorities]],
        [(owner, kind) for owner, kind, _, _ in records[answers + authorities :]],
        len(data),
    )


def answers_of(desired: DesiredNetwork = DESIRED) -> Answers:
    answers = Answers(seed=1)
    answers.advance(DesiredIndex(), desired)
    return answers


def packets(answers: Answers, name: str, kind: int = A, asker: str = WEB, edns: int = 0, tcp: bool = False) -> Packets:
    found = answers.answer(message.write_query(7, name, kind, udp_bytes_max=edns), asker, tcp=tcp)
    assert isinstance(found, tuple)
    return found


def ask(answers: Answers, name: str, kind: int = A, asker: str = WEB, edns: int = 0, tcp: bool = False) -> Read:
    return read(b"\0\7" + packets(answers, name, kind, asker, edns, tcp)[0])


def test_addresses_are_authoritative() -> None:
    found = ask(answers_of(), "web")
    assert found.code == 0
    assert found.flags & message.AUTHORITATIVE
    assert found.flags & message.RECURSION_AVAILABLE
    assert found.addresses == ["10.120.0.1"]
    assert ask(answers_of(), "web", AAAA).addresses == ["fd00:f00d::a78:1"]


@pytest.mark.parametrize(
    ("name", "kind", "asker", "code", "owner"),
    [
        ("both", AAAA, BACK, 0, ""),
        ("both.shop.fairway.internal", AAAA, BACK, 0, "fairway.internal"),
        ("web", HTTPS, WEB, 0, ""),
        ("web", SRV, WEB, 0, ""),
        ("shop.fairway.internal", A, WEB, 0, "fairway.internal"),
        ("many", PTR, WEB, 0, ""),
        ("empty", A, WEB, 0, ""),
        ("empty", AAAA, WEB, 0, ""),
        ("_http._tcp.empty", SRV, WEB, 0, ""),
        ("nobody", A, WEB, 3, ""),
        ("nobody.fairway.internal", A, WEB, 3, "fairway.internal"),
        ("web.shop.fairway.internal", A, BLOG, 3, "fairway.internal"),
        ("9.9.112.10.in-addr.arpa", PTR, WEB, 3, "112.10.in-addr.arpa"),
        ("11.2.112.10.in-addr.arpa", A, WEB, 0, "112.10.in-addr.arpa"),
    ],
)
def test_what_is_not_there_is_said_at_once_and_for_how_long(
    name: str, kind: int, asker: str, code: int, owner: str
) -> None:
    found = ask(answers_of(), name, kind, asker)
    assert (found.code, found.answers) == (code, [])
    assert found.authority == [(owner, SOA, 1)]


def test_a_negative_answer_has_an_authority_above_its_name() -> None:
    for name in ("nobody.fairway.internal", "9.9.119.10.in-addr.arpa"):
        found = ask(answers_of(), name, PTR)
        assert name.endswith(found.authority[0][0])


def test_the_zone_says_its_authority() -> None:
    assert [kind for kind, _, _ in ask(answers_of(), "fairway.internal", SOA).answers] == [SOA]


def test_reverse_names_are_answered() -> None:
    ((kind, _, data),) = ask(answers_of(), "11.2.112.10.in-addr.arpa", PTR).answers
    assert kind == PTR
    assert message.read_name(data, 0)[0] == "web.2.shop.fairway.internal"


def test_an_unknown_task_is_asked_to_try_again_and_a_stranger_refused() -> None:
    assert ask(answers_of(), "web", asker=STRANGER).code == message.SERVER_FAILURE
    assert ask(answers_of(), "web", asker="203.0.113.9").code == message.REFUSED


def test_a_service_without_a_virtual_address_answers_ready_tasks_in_changing_order() -> None:
    found = packets(answers_of(), "many")
    orders = {tuple(read(b"\0\7" + each).addresses) for each in found}
    assert orders == {("10.112.1.101", "10.112.1.102"), ("10.112.1.102", "10.112.1.101")}
    assert {ttl for each in found for _, ttl, _ in read(b"\0\7" + each).answers} == {1}


def test_of_many_tasks_a_bounded_number_is_answered_and_each_answer_begins_with_another() -> None:
    orders = [read(b"\0\7" + each) for each in packets(answers_of(CROWDED), "crowd")]
    assert all(len(set(each.addresses)) == ADDRESSES_PER_ANSWER_MAX for each in orders)
    assert max(Counter(each.addresses[0] for each in orders).values()) == 1
    assert all(each.size <= 512 for each in orders)
    assert not any(each.flags & message.TRUNCATED for each in orders)
    long_name = "crowd.shop.fairway.internal"
    small = ask(answers_of(CROWDED), long_name, AAAA)
    assert small.size <= 512
    assert len(small.addresses) == (512 - 12 - len(message.write_name(long_name)) - 4) // 28
    assert len(ask(answers_of(CROWDED), long_name, AAAA, edns=1232).addresses) == ADDRESSES_PER_ANSWER_MAX


def test_services_come_with_the_addresses_of_their_targets() -> None:
    found = ask(answers_of(), "_http._tcp.many", SRV, edns=1232)
    targets = set()
    for kind, _, data in found.answers:
        assert kind == SRV
        assert struct.unpack_from(">HHH", data) == (0, 0, 80)
        targets.add(message.read_name(data, 6)[0])
    assert targets == {"many.1.shop.fairway.internal", "many.2.shop.fairway.internal"}
    assert set(found.additional) == {(each, kind) for each in targets for kind in (A, AAAA)} | {("", message.TYPE_OPT)}


def test_services_that_do_not_fit_lose_the_additional_addresses_first_and_then_ask_for_tcp() -> None:
    answers = answers_of(CROWDED)
    plain = ask(answers, "_http._tcp.crowd", SRV)
    assert plain.flags & message.TRUNCATED
    assert not plain.answers
    whole = ask(answers, "_http._tcp.crowd", SRV, tcp=True)
    assert len(whole.answers) == CROWD
    assert len(whole.additional) == 2 * CROWD
    few = ask(answers, "_80._tcp.tasks.web", SRV)
    assert len(few.answers) == 3
    assert few.size <= 512
    assert not few.flags & message.TRUNCATED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (message.write_query(7, "web", A, flags=0x2000), message.NOT_IMPLEMENTED),
        (message.query_of(7, message.write_name("web") + b"\0\1\0\3"), message.REFUSED),
        (message.write_query(7, "web", 252), message.REFUSED),
        (b"\0\7\1\0\0\2\0\0\0\0\0\0", message.FORMAT_ERROR),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0\3we", message.FORMAT_ERROR),
    ],
)
def test_what_cannot_be_answered_is_said_by_code(data: bytes, code: int) -> None:
    found = answers_of().answer(data, WEB)
    assert isinstance(found, tuple)
    assert message.response_code(b"\0\7" + found[0]) == code


def test_another_version_of_edns_is_refused_by_its_code() -> None:
    data = bytearray(message.write_query(7, "web", A, udp_bytes_max=1232))
    data[-5] = 1
    found = answers_of().answer(bytes(data), WEB)
    assert isinstance(found, tuple)
    assert found[0].endswith(message.option_record(1232, False, message.BAD_VERSION))


def test_responses_and_fragments_get_no_answer() -> None:
    assert answers_of().answer(b"\0\7\x81\0", WEB) is None
    assert answers_of().answer(message.write_error(message.write_query(7, "web", A), 0) or b"", WEB) is None


def test_foreign_names_are_passed_on_with_the_tasks_own_servers() -> None:
    found = answers_of().answer(message.write_query(7, "example.com", A), WEB)
    assert isinstance(found, Passed)
    assert found.servers == ()
    tasks = (LocalTask("web1", WEB, ("A",), ("192.0.2.53",)),)
    found = answers_of(replace(DESIRED, tasks=tasks)).answer(message.write_query(7, "example.com", A), WEB)
    assert isinstance(found, Passed)
    assert found.servers == ("192.0.2.53",)


def test_internal_networks_have_no_way_out_by_questions_either() -> None:
    assert ask(answers_of(), "example.com", asker=BLOG).code == message.NAME_ERROR
    assert ask(answers_of(), "1.1.1.1.in-addr.arpa", PTR, asker=BLOG).code == message.NAME_ERROR
    assert ask(answers_of(), "blog", asker=BLOG).addresses == ["10.120.0.4"]


def test_ready_answers_are_of_one_asker_and_of_now() -> None:
    answers, index = Answers(seed=1), DesiredIndex()
    answers.advance(index, DESIRED)
    key = message.write_query(7, "web", A)[2:]
    packets(answers, "web")
    ready, mine = answers.ready_for(WEB)
    assert mine is not None
    assert key in mine
    _, theirs = answers.ready_for(BLOG)
    assert theirs is not None
    assert key not in theirs
    assert answers.ready_for(STRANGER)[1] is None
    changed = replace(DESIRED, frontends=())
    answers.advance(index, changed)
    assert answers.ready is not ready
    assert not answers.ready.of_asker


def test_a_policy_that_comes_or_goes_changes_what_was_ready() -> None:
    answers, index = Answers(seed=1), DesiredIndex()
    rule = PolicyRule((Peer(Selector("default", "blog")),))
    opened = Policy("p", "open", Selector("default", "shop", "web"), (rule,))
    for policies, addresses in (((), []), ((opened,), ["10.120.0.1"]), ((), [])):
        answers.advance(index, replace(DESIRED, policies=policies))
        for _ in range(2):
            assert ask(answers, "web.shop.fairway.internal", asker=BLOG).addresses == addresses


def test_an_asker_over_its_limit_waits_for_time_to_pass() -> None:
    limits, asker = Limits(), AskerState(WEB)
    limits.askers[b"\n\x70\1\x0b"] = asker
    limits.turn(100.0)
    assert sum(limits.may_make(asker) for _ in range(POINTS_MAX)) == POINTS_MAX // MAKING_POINTS
    limits.turn(100.0 + WINDOW_SECONDS / 2)
    assert not limits.may_make(asker)
    limits.turn(100.0 + 1.5 * WINDOW_SECONDS)
    assert asker.points == POINTS_PER_WINDOW
    assert limits.may_make(asker)


def test_all_askers_together_have_a_share_of_the_time() -> None:
    limits = Limits()
    limits.turn(100.0)
    limits.made(MAKING_SECONDS_MAX + 0.01)
    assert not limits.may_make(AskerState(WEB))
    limits.turn(100.0 + 1.5 * WINDOW_SECONDS)
    assert limits.may_make(AskerState(WEB))
