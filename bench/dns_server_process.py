"""Fairway's name server with the names of the benchmark, in the network namespace that it was started in.

Says "ready" on standard output when it has been given its names. With `--busy`, another thread computes all the time.
"""

from __future__ import annotations

import sys
import threading
import time

import trio

from bench.dns_names import APP, BACKENDS, DOMAIN, IPV6_PREFIX, NETWORK, SERVICES, backend, service, vip
from net.addresses import GATEWAY_ADDRESS, tunnel_mac
from net.desired_changes import DesiredIndex
from net.dns_answers import Answers
from net.dns_server import NameServer
from net.dns_upstream import Upstream
from net.model import Counters, DesiredNetwork, Endpoint, Frontend, Host, NetworkConfig, NetworkInfo, Port


def desired() -> DesiredNetwork:
    """The names of the benchmark, as the daemon would have them."""
    config = NetworkConfig("10.112.0.0/13", "10.120.0.0/16", dns_domain=DOMAIN, ipv6_prefix=IPV6_PREFIX)
    host = Host("node1", "host-1", "198.51.100.1", "10.112.0.0/16", "10.112.0.1", tunnel_mac("node1"), 1)
    frontends = tuple(
        Frontend(f"id-{number}", service(number), APP, "default", vip(number), (Port("tcp", 80),), (NETWORK,))
        for number in range(SERVICES)
    )
    endpoints = tuple(
        Endpoint(
            f"task-{number}-{slot}",
            f"{service(number)}.{slot}",
            f"id-{number}",
            "node1",
            backend(number, slot),
            True,
            (NETWORK,),
        )
        for number in range(SERVICES)
        for slot in range(1, BACKENDS + 1)
    )
    networks = (NetworkInfo(NETWORK, 1, "default", APP, "default"),)
    return DesiredNetwork(config, host, (host,), frontends, endpoints, networks)


SWITCH_SECONDS = 0.0005  # as in fairwayd


async def main() -> None:
    answers, counters = Answers(), Counters()
    answers.advance(DesiredIndex(), desired())
    upstream = Upstream(counters, servers=[])
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        nursery.start_soon(NameServer(answers, upstream, counters).serve, GATEWAY_ADDRESS)
        print("ready", flush=True)


def compute() -> None:
    while True:
        sum(number * number for number in range(1000))


def watch_heartbeats() -> None:
    """Prints, once a second, by how much a thread that wakes every 20 ms was late at most."""
    worst, until = 0.0, time.monotonic() + 1.0
    while True:
        due = time.monotonic() + 0.02
        time.sleep(0.02)
        worst = max(worst, time.monotonic() - due)
        if time.monotonic() > until:
            print(f"late {worst * 1000:.1f}", flush=True)
            worst, until = 0.0, time.monotonic() + 1.0


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_SECONDS)
    if "--busy" in sys.argv:
        threading.Thread(target=compute, daemon=True).start()
    if "--heartbeats" in sys.argv:
        threading.Thread(target=watch_heartbeats, daemon=True).start()
    trio.run(main)
