"""The name servers of three real hosts, asked from real tasks; an outside client plays the upstream server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from net import dns_message as message
from net.addresses import GATEWAY_ADDRESS, PEER_DNS_ADDRESS
from net.model import Frontend
from net.namespaces import within_namespace
from tests.net import resolvers
from tests.net.world import DEADLINE_SECONDS, ENDPOINTS, FRONTENDS, TRIES_MAX, World, running_world, wait_until


class UpstreamServer:
    """Answers 203.0.113.7 to every A query and counts them by name; over UDP only."""

    def __init__(self, namespace: Path) -> None:
        self.asked: Counter[str] = Counter()
        self._socket = within_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind(("0.0.0.0", 53))
        self._socket.settimeout(0.2)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self._socket.recvfrom(4096)
                query = message.read_query(data)
                self.asked[query.name] += 1
                if query.name.startswith("silent"):
                    continue
                records = [message.address_record("203.0.113.7", 60)] if query.kind == message.TYPE_A else []
                self._socket.sendto(message.write_response(query, 0, records), peer)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("names")) as world:
        wait_until(lambda: try_ask(world.tasks["web1"], "web"), "the name server")
        yield world


@pytest.fixture(scope="module")
def upstream(world: World) -> Iterator[UpstreamServer]:
    server = UpstreamServer(world.client)
    yield server
    server.close()


def exchange(
    namespace: Path, name: str, kind: int = message.TYPE_A, server: str = GATEWAY_ADDRESS, *, tcp: bool = False
) -> tuple[int, list[str]]:
    """(response code, addresses)."""
    data = message.write_query(4711, name, kind)
    flavour = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with within_namespace(namespace, lambda: socket.socket(socket.AF_INET, flavour)) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect((server, 53))
        if tcp:
            connection.sendall(struct.pack(">H", len(data)) + data)
            with connection.makefile("rb") as stream:
                answer = stream.read(*struct.unpack(">H", stream.read(2)))
        else:
            connection.send(data)
            answer = connection.recv(4096)
    count = struct.unpack_from(">H", answer, 6)[0]
    records = answer[len(data) :]
    if kind == message.TYPE_A:
        found = [socket.inet_ntoa(records[16 * n + 12 : 16 * n + 16]) for n in range(count)]
    else:
        found = ["?"] * count
    return message.response_code(answer), found


def try_ask(namespace: Path, name: str, server: str = GATEWAY_ADDRESS) -> bool:
    try:
        return exchange(namespace, name, server=server)[0] == 0
    except OSError:
        return False


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("task", "name", "answer"),
    [
        ("web1", "web", (0, ["10.120.0.1"])),
        ("web2", "one.shop", (0, ["10.120.0.2"])),
        ("web3", "2.web.shop.fairway.internal", (0, ["10.112.2.11"])),
        ("blog1", "blog", (0, ["10.120.0.4"])),
        ("blog1", "web.shop.fairway.internal", (3, [])),
        ("web1", "nobody", (3, [])),
    ],
)
def test_a_task_gets_answers(world: World, task: str, name: str, answer: tuple[int, list[str]], tcp: bool) -> None:
    assert exchange(world.tasks[task], name, tcp=tcp) == answer


@pytest.fixture(params=resolvers.KINDS)
def resolver(request: pytest.FixtureRequest, tmp_path: Path) -> resolvers.Resolver:
    return resolvers.Resolver(request.param, tmp_path)


def found_at_once(resolver: resolvers.Resolver, namespace: Path, name: str, resolv_conf: str) -> frozenset[str]:
    """The addresses; asserts that nothing waits for a timeout, of which the shortest is a second."""
    for _ in range(TRIES_MAX):
        found = resolver.look_up(namespace, name, resolv_conf)
        if found.seconds < 1.0:
            return found.addresses
    raise AssertionError(f"{name}: {found.seconds:.1f} s, {TRIES_MAX} times")


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web", {"10.120.0.1", "fd00:f00d::a78:1"}),
        ("www", {"10.120.0.1", "fd00:f00d::a78:1"}),
        ("web.shop", {"10.120.0.1", "fd00:f00d::a78:1"}),
        ("web.shop.fairway.internal", {"10.120.0.1", "fd00:f00d::a78:1"}),
        ("2.web", {"10.112.2.11", "fd00:f00d::a70:20b"}),
        ("example.com", {"203.0.113.7"}),  # has no IPv6 address
        ("nobody", set()),
        ("nobody.shop", {"203.0.113.7"}),  # this upstream server knows every name
        ("nobody.shop.fairway.internal", set()),
    ],
)
def test_real_resolvers_get_both_families_at_once(
    world: World, upstream: UpstreamServer, resolver: resolvers.Resolver, name: str, addresses: set[str]
) -> None:
    text = world.hosts[0].call("resolv_conf", "shop")
    assert found_at_once(resolver, world.tasks["web1"], name, text) == addresses


def test_more_dots_and_domains_cost_no_time_either(
    world: World, upstream: UpstreamServer, resolver: resolvers.Resolver
) -> None:
    text = world.hosts[0].call("resolv_conf", "shop", ["example.org"], ["ndots:5"])
    assert "search shop.fairway.internal fairway.internal example.org\n" in text
    assert "options ndots:5 timeout:2 attempts:2\n" in text
    for name in ("web", "web.shop"):
        found = found_at_once(resolver, world.tasks["web1"], name, text)
        # Busybox's nslookup goes through all domains, and this upstream server knows every name.
        assert found - {"203.0.113.7"} == {"10.120.0.1", "fd00:f00d::a78:1"}


def test_what_another_app_has_stays_hidden_by_type_and_address(world: World) -> None:
    for task, code in (("web1", message.NO_ERROR), ("blog1", message.NAME_ERROR)):
        for name, kind in (
            ("web.shop.fairway.internal", message.TYPE_AAAA),
            ("_80._tcp.web.shop.fairway.internal", message.TYPE_SRV),
            ("11.2.112.10.in-addr.arpa", message.TYPE_PTR),
            ("1.0.120.10.in-addr.arpa", message.TYPE_PTR),
        ):
            for tcp in (False, True):
                found = exchange(world.tasks[task], name, kind, tcp=tcp)
                assert found == (code, ["?"] if code == message.NO_ERROR else []), (task, name)


def test_a_task_that_is_not_ready_any_more_is_gone_from_the_next_answer(world: World) -> None:
    frontends = (*FRONTENDS, Frontend("id-web", "web", "shop", "default", "", (), ("A",)))[1:]
    endpoints = tuple(replace(each, ready=each.task_id != "web2") for each in ENDPOINTS)
    try:
        world.apply(frontends=frontends)
        found = exchange(world.tasks["one1"], "web")
        assert (found[0], sorted(found[1])) == (0, ["10.112.1.11", "10.112.2.11", "10.112.3.11"])
        world.apply(frontends=frontends, endpoints=endpoints)
        found = exchange(world.tasks["one1"], "web")
        assert (found[0], sorted(found[1])) == (0, ["10.112.1.11", "10.112.3.11"])
        none = tuple(replace(each, ready=False) for each in ENDPOINTS)
        world.apply(frontends=frontends, endpoints=none)
        assert exchange(world.tasks["one1"], "web") == (0, [])
        assert exchange(world.tasks["one1"], "web", message.TYPE_AAAA) == (0, [])
    finally:
        world.apply()


def test_a_type_that_a_name_does_not_have_is_an_empty_answer(world: World) -> None:
    assert exchange(world.tasks["web1"], "web", message.TYPE_PTR) == (0, [])


def test_the_host_itself_sees_all_names(world: World) -> None:
    assert exchange(world.hosts[0].namespace, "blog.blog") == (0, ["10.120.0.4"])


def test_the_servers_of_other_hosts_stand_in(world: World) -> None:
    wait_until(lambda: try_ask(world.tasks["one1"], "web", PEER_DNS_ADDRESS), "a peer")
    for _ in range(10):
        answer = exchange(world.tasks["one1"], "one", server=PEER_DNS_ADDRESS)
        assert answer == (0, ["10.120.0.2"])


def test_the_rest_is_asked_upstream_once_and_kept(world: World, upstream: UpstreamServer) -> None:
    def questions(name: str) -> int:
        """More than one where the server took long: after half a second it is asked again."""
        for _ in range(3):
            assert exchange(world.tasks["web1"], name) == (0, ["203.0.113.7"])
        assert exchange(world.tasks["web1"], name.upper(), tcp=True) == (0, ["203.0.113.7"])
        return upstream.asked[name]

    assert any(questions(f"example{number}.net") == 1 for number in range(TRIES_MAX))


def test_nobody_from_outside_gets_an_answer(world: World) -> None:
    with pytest.raises(OSError):
        exchange(world.client, "web.shop", server="198.51.100.1")


def test_resolv_conf_names_both_servers_and_the_app(world: World) -> None:
    text = world.hosts[0].call("resolv_conf", "shop")
    assert f"nameserver {GATEWAY_ADDRESS}\nnameserver {PEER_DNS_ADDRESS}\n" in text
    assert "search shop.fairway.internal fairway.internal\n" in text


def test_a_silent_upstream_is_an_error_within_seconds(world: World, upstream: UpstreamServer) -> None:
    assert exchange(world.tasks["web1"], "silent.example.org")[0] == message.SERVER_FAILURE
