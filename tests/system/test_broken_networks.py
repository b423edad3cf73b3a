"""Networks that are broken, one after the other: `net trace` or `doctor` names the cause of each, and sees it mended.

What fairwayd would repair at once is broken as it happens in life: by another program's firewall, route or rule, which
is not ours to remove, or by somebody who breaks it again and again, which the doctor's findings then say.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from cli.failure import EXIT_FOUND_BROKEN, EXIT_OK, EXIT_WARNINGS
from lab.processes import ProcessMark
from tests.system.cluster import Cluster

SAID_SECONDS_MAX = 20.0
MENDED_SECONDS_MAX = 30.0
NOBODY_MAC = "02:00:00:00:00:99"
UPSTREAM = "10.255.255.53"
APP = """
name: {app}
services:
  front: {{image: "static-web:1", networks: [one], stop_grace_period: 1s,
    deploy: {{placement: {{constraints: ["node.hostname == {a}"]}}}}}}
  back: {{image: "static-web:1", networks: [one], expose: ["8000"], stop_grace_period: 1s,
    deploy: {{placement: {{constraints: ["node.hostname == {b}"]}}}}}}
  loopback: {{image: "static-web:1", networks: [one], init: true, stop_grace_period: 1s,
    entrypoint: ["httpd", "-f", "-p", "127.0.0.1:8000", "-h", "/tmp"]}}
  idle: {{image: "static-web:1", networks: [one], init: true, stop_grace_period: 1s, entrypoint: ["sleep", "100000"]}}
  other: {{image: "static-web:1", networks: [two], stop_grace_period: 1s, init: true}}
  closed: {{image: "static-web:1", networks: [shut], stop_grace_period: 1s, init: true}}
  dead: {{image: "static-web:1", networks: [one], entrypoint: ["false"]}}
  sick: {{image: "static-web:1", networks: [one], stop_grace_period: 1s, init: true,
    healthcheck: {{test: ["CMD", "false"], interval: 1s, retries: 1}}}}
networks: {{one: {{}}, two: {{}}, shut: {{internal: true}}}}
"""


class World:
    """The lab's cluster with an app on it: `front` on host `a`, `back` on host `b`; neither leads as it begins."""

    def __init__(self, cluster: Cluster, app: str, a: str, b: str) -> None:
        self.cluster, self.app, self.a, self.b = cluster, app, a, b

    def on(self, host: str, command: str, check: bool = True) -> str:
        return self.cluster.lab.run_in(host, ["sh", "-c", command], check=check).stdout

    def address(self, host: str) -> str:
        return self.cluster.lab.address(host)

    def task(self, service: str) -> dict[str, str]:
        """Of the one running task: id, address and pid on its host."""
        found = next(
            each for each in self.cluster.tasks(f"{self.app}/{service}") if each["status"]["state"] == "running"
        )
        return {"id": found["meta"]["id"], "address": found["address"], "pid": str(found["status"]["pid"])}

    def said(self, case: Case) -> str:
        """What the command of a case says, in one line."""
        command = [word.format(app=self.app, a=self.a, b=self.b) for word in case.command]
        if command[0] == "net":
            reply = self.cluster.json(*command, host=self.a, codes=(EXIT_OK, EXIT_FOUND_BROKEN))
            notes = " ".join(hop["message"] for hop in reply["hops"] if hop["outcome"] == "note")
            return f"{reply['verdict']} / {notes}"
        host = self.b if case.ask_b else self.a
        reply = self.cluster.json(*command, host=host, codes=(EXIT_OK, EXIT_WARNINGS, EXIT_FOUND_BROKEN))
        return " / ".join(f"{each['where']}: {each['check']}: {each['message']}" for each in reply["findings"])


Breaking = Callable[[World], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """`says`: a pattern with the names of the world in it; `repaired`: what is said is what was repaired."""

    name: str
    broken: Breaking
    command: tuple[str, ...]
    says: str
    repaired: bool = False
    ask_b: bool = False


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    leader = cluster.leader()
    a, b = [host for host in cluster.lab.hosts() if host != leader][:2]
    app = f"broken-{uuid.uuid4().hex[:6]}"
    path = cluster.folder / f"{app}.yaml"
    path.write_text(APP.format(app=app, a=a, b=b))
    with upstream_name_server(cluster):
        cluster.fairway("deploy", str(path), "--detach")
        made = World(cluster, app, a, b)
        try:
            for service in ("front", "back", "loopback", "idle", "other", "closed"):
                cluster.wait(lambda name=service: cluster.ready(f"{app}/{name}", 1, a), f"{service} is ready")  # type: ignore[misc]
            yield made
        finally:
            cluster.remove(app)


@contextlib.contextmanager
def upstream_name_server(cluster: Cluster) -> Iterator[None]:
    """Lab hosts have no way out, so their upstream name server is given to them: it knows no name at all."""
    holder = _switch(cluster)
    _in_switch(holder, f"ip addr replace {UPSTREAM}/32 dev lo")
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", sys.executable, "-c", _NAME_SERVER, UPSTREAM]
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()
        _in_switch(holder, f"ip addr del {UPSTREAM}/32 dev lo")


_NAME_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    asked, asker = server.recvfrom(4096)
    question = asked[12 : asked.index(0, 12) + 5]
    server.sendto(asked[:2] + bytes.fromhex("81830001000000000000") + question, asker)
"""


def _switch(cluster: Cluster) -> ProcessMark:
    return cluster.lab._switch()


def _in_switch(holder: ProcessMark, command: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", "sh", "-c", command], check=True, timeout=20)


@contextlib.contextmanager
def nothing(_world: World) -> Iterator[None]:
    """What is asked for is wrong as it is."""
    yield


def commands(on: str, do: str, undo: str) -> Breaking:
    """A command on host "a" or "b" that breaks, and one that mends."""

    @contextlib.contextmanager
    def broken(world: World) -> Iterator[None]:
        host = world.a if on == "a" else world.b
        words = {
            "a": world.address(world.a),
            "b": world.address(world.b),
            "back": world.task("back")["address"],
            "block": world.task("back")["address"].rpartition(".")[0] + ".0/24",
            "nobody": NOBODY_MAC,
            "pid": world.task("back")["pid"],
        }
        world.on(host, do.format(**words))
        try:
            yield
        finally:
            world.on(host, undo.format(**words))

    return broken


def again_and_again(on: str, command: str) -> Breaking:
    """A command that somebody on host "a" or "b" repeats ten times a second."""

    @contextlib.contextmanager
    def broken(world: World) -> Iterator[None]:
        host, over = world.a if on == "a" else world.b, threading.Event()
        peer = world.b if host == world.a else world.a
        node = next(v["node"] for v in world.cluster.json("node", "ls") if v["node"]["meta"]["name"] == peer)
        network = {"tunnel": node["network"]["tunnel_address"], "mac": node["network"]["tunnel_mac"]}
        network |= {"block": node["network"]["block"], "nobody": NOBODY_MAC}

        def repeat() -> None:
            while not over.wait(0.1):
                world.on(host, command.format(**network), check=False)

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return broken


@contextlib.contextmanager
def small_path(world: World) -> Iterator[None]:
    """The cable to host b carries less than its MTU says; larger packets vanish without a word."""
    holder = _switch(world.cluster)
    _in_switch(
        holder, "nft add table bridge small; nft 'add chain bridge small way { type filter hook forward priority 0; }'"
    )
    _in_switch(holder, f"nft 'add rule bridge small way oifname {world.b} meta length > 1200 drop'")
    try:
        yield
    finally:
        _in_switch(holder, "nft delete table bridge small")


@contextlib.contextmanager
def cut_off(world: World) -> Iterator[None]:
    """Host b is silent for the others."""
    world.cluster.lab.partition([world.b])
    try:
        yield
    finally:
        world.cluster.lab.heal()


@contextlib.contextmanager
def taken_address(world: World) -> Iterator[None]:
    """Another machine takes host b's address on the underlay."""
    command = f"ip addr {{}} {world.address(world.b)}/32 dev eth0"
    world.cluster.lab.run_in("client", ["sh", "-c", command.format("add")])
    try:
        yield
    finally:
        world.cluster.lab.run_in("client", ["sh", "-c", command.format("del")])
        for host in world.cluster.lab.hosts():
            if host != world.b:
                world.on(host, f"ip neigh flush to {world.address(world.b)}", check=False)


@contextlib.contextmanager
def silent_upstream(world: World) -> Iterator[None]:
    """The upstream name server's packets are dropped on the way."""
    holder = _switch(world.cluster)
    _in_switch(holder, "nft add table ip away; nft 'add chain ip away input { type filter hook input priority 0; }'")
    _in_switch(holder, "nft add rule ip away input udp dport 53 drop")
    try:
        yield
    finally:
        _in_switch(holder, "nft delete table ip away")


def firewall(on: str, chain: str, rule: str = "") -> Breaking:
    """Another program's packet filter on a host."""
    add = (
        f"nft add table inet theirs; nft 'add chain inet theirs {chain.split()[0]} {{{{ {chain.partition(' ')[2]} }}}}'"
    )
    if rule:
        add += f"; nft add rule inet theirs {chain.split()[0]} {rule}"
    return commands(on, add, "nft delete table inet theirs")


TRACE = ("net", "trace", "{app}/front", "back")
HOSTS = ("net", "trace", "{a}", "{b}")
DOCTOR = ("doctor",)
CASES = (
    # The other end.
    Case(
        "wrong port",
        nothing,
        ("net", "trace", "{app}/front", "back:9999"),
        r"process on {b}: nothing in back\.1 listens on tcp port 9999; it listens on 8000",
    ),
    Case(
        "no listener",
        nothing,
        ("net", "trace", "{app}/front", "idle:8000"),
        r"process on .*: nothing in idle\.1 .*no port at all",
    ),
    Case(
        "listens on the loopback only",
        nothing,
        ("net", "trace", "{app}/front", "loopback:8000"),
        r"listens on 127\.0\.0\.1:8000 only",
    ),
    Case("dead backend", nothing, ("net", "trace", "{app}/front", "dead:8000"), r"no task of {app}/dead is ready"),
    Case(
        "unhealthy backend",
        nothing,
        ("net", "trace", "{app}/front", "sick:8000"),
        r"no task of {app}/sick is ready: .*health check",
    ),
    Case("a service that is not ready", nothing, DOCTOR, r"services: {app}/dead: 0 of 1 tasks are ready"),
    # Names and addresses.
    Case(
        "name that does not exist",
        nothing,
        ("net", "trace", "{app}/front", "bakc"),
        r"there is no name bakc .*did you mean .*back",
    ),
    Case(
        "name from outside that does not exist",
        nothing,
        ("net", "trace", "{app}/front", "nobody.example.com:80"),
        r"no name nobody\.example\.com",
    ),
    Case(
        "address that nobody has",
        nothing,
        ("net", "trace", "{app}/front", "10.112.250.250:80"),
        r"no service, task or host has it",
    ),
    Case(
        "upstream name server is dead",
        silent_upstream,
        DOCTOR,
        rf"upstream DNS: the upstream name server {UPSTREAM} does not answer",
    ),
    # Who may reach whom.
    Case(
        "another network of the app",
        nothing,
        ("net", "trace", "{app}/front", "{app}/other:8000"),
        r"front\.1 is in network {app}/one, {app}/other in network {app}/two: they share no network",
    ),
    Case(
        "name of another network",
        nothing,
        ("net", "trace", "{app}/front", "other:8000"),
        r"name on {a}: other is not known there .*they share no network",
    ),
    Case(
        "no way out of an internal network",
        nothing,
        ("net", "trace", "{app}/closed", "192.0.2.7:80"),
        r"internal networks only",
    ),
    # Between the hosts.
    Case("small MTU on the way", small_path, HOSTS, r"MTU on {a}: packets of \d+ bytes do not arrive at {b}"),
    Case(
        "VXLAN port is dropped",
        firewall("b", "input type filter hook input priority -10;", "udp dport 4789 drop"),
        TRACE,
        r"overlay on {a}: {b} answers on the underlay and not over VXLAN.*table inet theirs, chain input .*on {b}",
    ),
    Case(
        "foreign rule takes the route",
        commands("a", "ip rule add pref 50 to {block} blackhole", "ip rule del pref 50"),
        TRACE,
        r"route on {a}: .*\(back\.1\): the kernel drops it",
    ),
    Case(
        "foreign route takes the address",
        commands("a", "ip route add {back}/32 via 10.99.0.1", "ip route del {back}/32 via 10.99.0.1"),
        TRACE,
        r"route on {a}: .*it goes by eth0 via 10\.99\.0\.1; it should go by fwx0",
    ),
    Case(
        "the way back is lost",
        commands("b", "ip rule add pref 50 from {back} blackhole", "ip rule del pref 50"),
        TRACE,
        r"peer on {b}: the way back",
    ),
    Case(
        "address of the task is on the host too",
        commands("a", "ip addr add {back}/32 dev lo", "ip addr del {back}/32 dev lo"),
        TRACE,
        r"route on {a}: .*it goes by lo",
    ),
    Case(
        "stale neighbour on the underlay",
        commands("a", "ip neigh replace {b} lladdr {nobody} nud permanent dev eth0", "ip neigh del {b} dev eth0"),
        HOSTS,
        r"underlay on {a}: .*set by hand, to 02:00:00:00:00:99",
    ),
    Case(
        "duplicate address of a host",
        taken_address,
        DOCTOR,
        r"{b}: address: another machine \(.*\) has this host's address",
        ask_b=True,
    ),
    Case("host is down", cut_off, TRACE, r"no task of {app}/back is ready|the host is down"),
    Case("host is down, says the doctor", cut_off, DOCTOR, r"{b}: hosts: the host is down"),
    # On a host.
    Case(
        "firewall between the tasks",
        firewall("b", "forward type filter hook forward priority 0; policy drop;"),
        TRACE,
        r"connection on {a}: .*no answer.*table inet theirs, chain forward \(policy drop\) on {b}",
    ),
    Case(
        "interface within the task is down",
        commands(
            "b",
            "nsenter -t {pid} -n ip link set eth0 down",
            "nsenter -t {pid} -n ip link set eth0 up; "
            "nsenter -t {pid} -n ip route add default via 169.254.77.1 dev eth0 onlink",
        ),
        TRACE,
        r"interface on {b}: eth0 within back\.1 is down",
    ),
    Case(
        "forwarding is off",
        again_and_again("b", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
        TRACE,
        r"forwarding on {b}: IPv4 forwarding is off",
    ),
    Case(
        "missing FDB entry",
        again_and_again("a", "bridge fdb del {mac} dev fwx0"),
        DOCTOR,
        r"{a}: data plane: .*had to add FDB entry",
        repaired=True,
    ),
    Case(
        "wrong neighbour on the overlay",
        again_and_again("a", "ip neigh replace {tunnel} lladdr {nobody} nud permanent dev fwx0"),
        DOCTOR,
        r"{a}: data plane: .*had to add neighbour",
        repaired=True,
    ),
    Case(
        "missing route",
        again_and_again("a", "ip route del {block}"),
        DOCTOR,
        r"{a}: data plane: .*had to add route",
        repaired=True,
    ),
    Case(
        "flushed rules",
        again_and_again("a", "nft flush ruleset"),
        TRACE,
        r"packet rules are not as they should be: missing|missing (set|chain)",
        repaired=True,
    ),
    Case(
        "VXLAN device is down",
        again_and_again("a", "ip link set fwx0 down"),
        DOCTOR,
        r"{a}: data plane: .*device fwx0: it is down",
        repaired=True,
    ),
)


def test_all_is_well_before(world: World) -> None:
    reply = world.cluster.json("net", "trace", f"{world.app}/front", "back", host=world.a)
    assert reply["reached"], reply["verdict"]
    hops = {hop["hop"]: hop["outcome"] for hop in reply["hops"]}
    assert hops == dict.fromkeys(
        (
            "source",
            "name",
            "balancer",
            "policy",
            "route",
            "tunnel",
            "underlay",
            "overlay",
            "peer",
            "interface",
            "process",
            "connection",
        ),
        "ok",
    )


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_cause_is_named(world: World, case: Case) -> None:
    pattern = re.compile(case.says.format(app=world.app, a=world.a, b=world.b))
    with case.broken(world):
        wait_until(lambda: pattern.search(world.said(case)) is not None, lambda: world.said(case), SAID_SECONDS_MAX)
    if case.broken is not nothing and not case.repaired:
        wait_until(lambda: pattern.search(world.said(case)) is None, lambda: world.said(case), MENDED_SECONDS_MAX)


def wait_until(holds: Callable[[], bool], said: Callable[[], str], seconds_max: float) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds_max, said()
        time.sleep(0.1)


def test_all_is_well_after(world: World) -> None:
    wait_until(
        lambda: bool(
            world.cluster.json(*(w.format(app=world.app) for w in TRACE), host=world.a, codes=(0, 6))["reached"]
        ),
        lambda: str(world.cluster.json(*(w.format(app=world.app) for w in TRACE), host=world.a, codes=(0, 6))),
        MENDED_SECONDS_MAX,
    )
