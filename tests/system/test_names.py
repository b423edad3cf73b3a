"""Names as containers of a real cluster see them: resolver, hosts file, kinds of names, and what others have."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.system.cluster import ROOT, Cluster, run_in_task

Deploy = Callable[[str], str]
SERVICES = """
services:
  web:
    image: shop-api:1
    stop_grace_period: 1s
    ports: [{target: 8000, name: http}]
    networks: {default: {aliases: [www]}}
  many:
    image: shop-api:1
    stop_grace_period: 1s
    expose: ["8000"]
    deploy: {replicas: 3, endpoint_mode: dnsrr}
  asker:
    image: shop-api:1
    stop_grace_period: 1s
    dns_search: ["."]
    dns_opt: ["ndots:2"]
    extra_hosts: ["db:192.0.2.7", "host:host-gateway"]
  box:
    image: static-web:1
    stop_grace_period: 1s
"""
# What getaddrinfo says of each name, both families at once, and how long it took.
LOOK_UP = """
import json, socket, sys, time
found = {}
for name in sys.argv[1:]:
    began = time.monotonic()
    try:
        addresses = sorted({each[4][0] for each in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        addresses = []
    found[name] = [addresses, time.monotonic() - began]
print(json.dumps(found))
"""
# A and AAAA from one socket at once, as musl asks; SRV and PTR; (answers, response code) by name and type.
ASK = """
import json, socket, struct, sys
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(15)
asker.connect(("169.254.77.1", 53))
questions = [each.split() for each in sys.argv[1:]]
for number, (name, kind) in enumerate(questions):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split(".")) + bytes(1)
    asker.send(struct.pack(">HHHHHH", number, 256, 1, 0, 0, 0) + labels + struct.pack(">HH", int(kind), 1))
found = {}
for _ in questions:
    data = asker.recv(4096)
    number, flags, _, count = struct.unpack_from(">HHHH", data)
    found[" ".join(questions[number])] = [count, flags & 15]
print(json.dumps(found))
"""
# Both on one host, whose answers of one server must not be those of the other.
CHOOSERS = """
services:
  one: &one
    image: shop-api:1
    stop_grace_period: 1s
    expose: ["8000"]
    dns: [{first}]
    deploy: {{placement: {{constraints: ["node.hostname == host-1"]}}}}
  other: {{<<: *one, dns: [{second}]}}
"""
# Knows the address of printer.example and no other name; says that it listens, and then each name that it is asked for.
NAME_SERVER = """
import socket, sys
from net import dns_message as message
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("listens", flush=True)
while True:
    data, asker = server.recvfrom(4096)
    query = message.read_query(data)
    print(query.name, flush=True)
    known = query.name == "printer.example"
    answers = [message.address_record(sys.argv[2], 60)] if known and query.kind == message.TYPE_A else []
    server.sendto(message.write_response(query, message.NO_ERROR if known else message.NAME_ERROR, answers), asker)
"""
QUICK_S = 4.0  # less than a resolver's time-out, which is 5


def look_up(cluster: Cluster, task: str, *names: str) -> dict[str, list[str]]:
    """Addresses of names, none of which may have waited for a time-out."""
    found = json.loads(run_in_task(cluster, task, "python3", "-c", LOOK_UP, *names))
    assert all(seconds < QUICK_S for _, seconds in found.values()), found
    return {name: addresses for name, (addresses, _) in found.items()}


def ask(cluster: Cluster, task: str, *questions: str) -> Any:
    return json.loads(run_in_task(cluster, task, "python3", "-c", ASK, *questions))


def test_names_as_containers_see_them(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(SERVICES)
    vip = cluster.vip(f"{app}/web")
    tasks = {task["address"] for task in cluster.tasks(f"{app}/many")}
    whole = f"web.{app}.fairway.internal"
    names = (
        "web",
        "www",
        f"web.{app}",
        whole,
        "1.web",
        "many",
        "tasks.many",
        "nobody",
        f"nobody.{app}.fairway.internal",
    )
    found: dict[str, list[str]] = {}

    def known() -> bool:
        found.update(look_up(cluster, f"{app}/asker", *names, "db", "host", "localhost"))
        addresses = set(found["many"]) & set(found["tasks.many"])
        return tasks <= addresses and all(found[name] for name in ("web", "www", f"web.{app}", whole, "1.web"))

    cluster.wait(known, "the asker's host has heard of all")
    for name in ("web", "www", f"web.{app}", whole):
        assert [each for each in found[name] if ":" not in each] == [vip], name
    assert {each for each in found["many"] if ":" not in each} == tasks
    assert found["tasks.many"] == found["many"]
    assert len({each for each in found["1.web"] if ":" not in each}) == 1
    assert found["nobody"] == found[f"nobody.{app}.fairway.internal"] == []
    assert (found["db"], found["host"]) == (["192.0.2.7"], ["169.254.77.1"])

    text = run_in_task(cluster, f"{app}/asker", "cat", "/etc/resolv.conf")
    assert f"search {app}.fairway.internal fairway.internal\n" in text
    assert "options ndots:2 " in text

    reverse = ".".join(reversed(vip.split("."))) + ".in-addr.arpa"
    questions = {f"{whole} 1": [1, 0], f"_http._tcp.{whole} 33": [1, 0], f"{reverse} 12": [1, 0]}
    questions |= {"_http._tcp.many 33": [0, 3], "_8000._tcp.many 33": [3, 0], "nobody 28": [0, 3]}
    assert ask(cluster, f"{app}/asker", *questions) == questions
    assert ask(cluster, f"{app}/asker", f"{whole} 28")[f"{whole} 28"][1] == 0

    # Busybox is another resolver, and asks a name server for both families by itself.
    assert vip in run_in_task(cluster, f"{app}/box", "nslookup", whole)

    other = deployed("services:\n  asker:\n    image: shop-api:1\n    stop_grace_period: 1s\n")
    own = f"asker.{other}.fairway.internal 1"
    cluster.wait(lambda: ask(cluster, f"{other}/asker", own) == {own: [1, 0]}, "the other asker is known")
    hidden = {f"{name} {kind}": [0, 3] for name, kind in ((whole, 1), (f"_http._tcp.{whole}", 33), (reverse, 12))}
    assert ask(cluster, f"{other}/asker", *hidden) == hidden

    # A service without a virtual address follows its tasks.
    def named() -> set[str]:
        return {each for each in look_up(cluster, f"{app}/asker", "many")["many"] if ":" not in each}

    cluster.fairway("scale", f"{app}/many=1")
    cluster.wait(
        lambda: len(left := cluster.tasks(f"{app}/many")) == 1 and named() == {left[0]["address"]}, "one is left"
    )
    cluster.fairway("scale", f"{app}/many=0")
    cluster.wait(lambda: named() == set(), "none is left, which is said at once")


@contextlib.contextmanager
def name_server(cluster: Cluster, where: str, answer: str) -> Iterator[Callable[[], set[str]]]:
    """At the address of a host or client. The yielded function ends it and gives the names that it was asked for."""
    process = cluster.lab.popen(
        where,
        [sys.executable, "-c", NAME_SERVER, cluster.lab.address(where), answer],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None

    def finish() -> set[str]:
        os.killpg(process.pid, signal.SIGKILL)  # nsenter and what it runs
        return set(process.communicate()[0].split())

    try:
        assert process.stdout.readline() == "listens\n"
        yield finish
    finally:
        if process.poll() is None:
            finish()


def test_names_from_outside_are_asked_of_the_servers_that_a_service_chose(cluster: Cluster, deployed: Deploy) -> None:
    with name_server(cluster, "client", "192.0.2.1") as first, name_server(cluster, "host-2", "192.0.2.2") as second:
        app = deployed(CHOOSERS.format(first=cluster.lab.address("client"), second=cluster.lab.address("host-2")))
        vips = {service: cluster.vip(f"{app}/{service}") for service in ("one", "other")}
        own = [f"{service}.{app}.fairway.internal" for service in vips]  # never asked of others, known or not
        cluster.wait(
            lambda: all(all(look_up(cluster, f"{app}/{asker}", *own).values()) for asker in vips),
            "their host knows both",
        )
        for service, printer in (("one", "192.0.2.1"), ("other", "192.0.2.2")):
            names = ("printer.example", "scanner.example", "one", f"other.{app}.fairway.internal")
            found = look_up(cluster, f"{app}/{service}", *names)
            found = {name: [each for each in addresses if ":" not in each] for name, addresses in found.items()}
            assert found == dict(zip(names, ([printer], [], [vips["one"]], [vips["other"]]), strict=True))
        # The cluster's own names are nobody else's business.
        assert first() == second() == {"printer.example", "scanner.example"}
