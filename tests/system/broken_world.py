"""Ways to break the network of a lab's cluster, and to ask what is wrong with it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cli.failure import EXIT_FOUND_BROKEN, EXIT_OK, EXIT_WARNINGS
from lab.processes import ProcessMark
from tests.system.cluster import Cluster, Failed

SAID_SECONDS_MAX = 60.0
MENDED_SECONDS_MAX = 60.0
NOBODY_MAC = "02:00:00:00:00:99"


class World:
    """The lab's cluster with an app on it: `front` on host `a`, `back` on host `b`; neither leads as it begins."""

    def __init__(self, cluster: Cluster, app: str, a: str, b: str) -> None:
        self.cluster, self.app, self.a, self.b = cluster, app, a, b

    def on(self, host: str, command: str, check: bool = True) -> str:
        return self.cluster.lab.run_in(host, ["sh", "-c", command], check=check).stdout

    def address(self, host: str) -> str:
        return self.cluster.lab.address(host)

    def task(self, service: str) -> dict[str, str]:
        """Of the one ready task: id, address and pid on its host."""

        def ready() -> list[dict[str, Any]]:
            tasks = self.cluster.tasks(f"{self.app}/{service}")
            return [each for each in tasks if each["status"]["ready"] and each["desired"] == "running"]

        self.cluster.wait(lambda: len(ready()) == 1, f"a task of {service} is ready")
        (found,) = ready()
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

    def wait_until_named(self, case: Case, named: bool, seconds_max: float) -> None:
        """Until the cause is named, or is not any more."""
        pattern = re.compile(case.says.format(app=self.app, a=self.a, b=self.b))
        said = ""

        def is_so() -> bool:
            nonlocal said
            said = self.said(case)
            return (pattern.search(said) is not None) == named

        try:
            self.cluster.wait(is_so, case.name, seconds_max)
        except Failed as failure:
            raise Failed(f"{failure}: {said}") from failure


Breaking = Callable[[World], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """`says`: a pattern with the names of the world in it; `repaired`: what is said is what was repaired; `ask_b`: the
    doctor is asked on host b."""

    name: str
    broken: Breaking
    command: tuple[str, ...]
    says: str
    repaired: bool = False
    ask_b: bool = False
    also: tuple[tuple[str, ...], str] | None = None  # another command and what it says


def upstreams(cluster: Cluster) -> list[str]:
    """The name servers in the hosts' resolv.conf, which is this machine's."""
    lines = cluster.lab.run_in("host-1", ["cat", "/etc/resolv.conf"]).stdout.splitlines()
    found = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    return [address for address in found if ":" not in address][:3]


@contextlib.contextmanager
def upstream_name_servers(cluster: Cluster) -> Iterator[None]:
    """Lab hosts have no way out, so their upstream name servers are on each of them: they know no name at all."""
    servers = upstreams(cluster)
    assert servers, "this machine's resolv.conf names no name server of IPv4"
    own = [address for address in servers if not address.startswith("127.")]
    processes = []
    try:
        for host in cluster.lab.hosts():
            for address in own:
                cluster.lab.run_in(host, ["ip", "addr", "replace", f"{address}/32", "dev", "lo"])
            command = [sys.executable, "-c", _NAME_SERVER, *servers]
            processes.append(cluster.lab.popen(host, command, stdin=subprocess.PIPE))
        yield
    finally:
        for process in processes:
            process.communicate()  # closes its standard input, at which it ends
        for host in cluster.lab.hosts():
            for address in own:
                cluster.lab.run_in(host, ["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=False)


_NAME_SERVER = """
import select, socket, sys
servers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in sys.argv[1:]]
for server, address in zip(servers, sys.argv[1:]):
    server.bind((address, 53))
while True:
    for server in select.select([sys.stdin, *servers], [], [])[0]:
        if server is sys.stdin:
            sys.exit()
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
def silent_upstreams(world: World) -> Iterator[None]:
    """Packets to the upstream name servers of host a are dropped."""
    servers = ", ".join(upstreams(world.cluster))
    world.on(world.a, "nft add table ip away; nft 'add chain ip away out { type filter hook output priority 0; }'")
    world.on(world.a, f"nft 'add rule ip away out ip daddr {{ {servers} }} udp dport 53 drop'")
    try:
        yield
    finally:
        world.on(world.a, "nft delete table ip away")


def firewall(on: str, chain: str, rule: str = "") -> Breaking:
    """Another program's packet filter on a host."""
    add = (
        f"nft add table inet theirs; nft 'add chain inet theirs {chain.split()[0]} {{{{ {chain.partition(' ')[2]} }}}}'"
    )
    if rule:
        add += f"; nft add rule inet theirs {chain.split()[0]} {rule}"
    return commands(on, add, "nft delete table inet theirs")
