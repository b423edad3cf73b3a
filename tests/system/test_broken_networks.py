"""Networks that are broken, one after the other: `net trace` or `doctor` names the cause of each, and sees it mended.

What fairwayd would repair at once is broken as it happens in life: by another program's firewall, route or rule, which
is not ours to remove, or by somebody who breaks it again and again, which the doctor's findings then say.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.system.broken_world import (
    MENDED_SECONDS_MAX,
    SAID_SECONDS_MAX,
    Case,
    World,
    again_and_again,
    commands,
    cut_off,
    firewall,
    nothing,
    silent_upstreams,
    small_path,
    taken_address,
    upstream_name_servers,
)
from tests.system.cluster import Cluster

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
  far: {{image: "static-web:1", networks: [one], ports: ["10.99.0.99:18099:8000"], stop_grace_period: 1s}}
networks: {{one: {{}}, two: {{}}, shut: {{internal: true}}}}
"""


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    leader = cluster.leader()
    a, b = [host for host in cluster.lab.hosts() if host != leader][:2]
    app = f"broken-{uuid.uuid4().hex[:6]}"
    path = cluster.folder / f"{app}.yaml"
    path.write_text(APP.format(app=app, a=a, b=b))
    with upstream_name_servers(cluster):
        cluster.fairway("deploy", str(path), "--detach")
        made = World(cluster, app, a, b)
        try:
            for service in ("front", "back", "loopback", "idle", "other", "closed"):
                cluster.wait(lambda name=service: cluster.ready(f"{app}/{name}", 1, a), f"{service} is ready")  # type: ignore[misc]
            yield made
        finally:
            cluster.remove(app)


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
        silent_upstreams,
        DOCTOR,
        r"{a}: upstream DNS: the upstream name servers? .* not answer",
    ),
    Case(
        "name server is shut off",
        firewall("a", "input type filter hook input priority -10;", "udp dport 53 drop"),
        TRACE,
        r"name on {a}: the name server at 169\.254\.77\.1 did not answer",
        also=(DOCTOR, r"{a}: DNS: this host's name server does not answer"),
    ),
    Case(
        "published at an address that no host has",
        nothing,
        DOCTOR,
        r"{app}/far publishes port 18099 at 10\.99\.0\.99 only, which no host has",
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
    Case(
        "host is down",
        cut_off,
        TRACE,
        r"no task of {app}/back is ready|the host is down",
        also=(DOCTOR, r"{b}: hosts: the host is down"),
    ),
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
    well = dict.fromkeys(
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

    def is_well() -> bool:
        reply = world.cluster.json("net", "trace", f"{world.app}/front", "back", host=world.a)
        # What another test did a minute ago may still be said.
        hops = {hop["hop"]: hop["outcome"] for hop in reply["hops"] if hop["hop"] != "repairs"}
        return bool(reply["reached"]) and hops == well

    world.cluster.wait(is_well, "every hop is well")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_cause_is_named(world: World, case: Case) -> None:
    asked = [case] if case.also is None else [case, replace(case, command=case.also[0], says=case.also[1], also=None)]
    with case.broken(world):
        for each in asked:
            world.wait_until_named(each, True, SAID_SECONDS_MAX)
    if case.broken is not nothing and not case.repaired:
        for each in asked:
            world.wait_until_named(each, False, MENDED_SECONDS_MAX)


def test_all_is_well_after(world: World) -> None:
    well = Case("", nothing, TRACE, r"^{app}/front\.1 reaches {app}/back:8000")
    world.wait_until_named(well, True, MENDED_SECONDS_MAX)
