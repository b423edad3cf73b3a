"""Several hosts, a switch and an outside client, each a network namespace of its own, for tests."""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from net.addresses import ipv6_of, tunnel_mac
from net.model import (
    DesiredNetwork,
    Endpoint,
    Frontend,
    Host,
    LocalTask,
    NetworkConfig,
    NetworkInfo,
    Port,
)
from net.namespaces import within_namespace
from tests.net.held_namespaces import HeldNamespaces

ROOT = Path(__file__).resolve().parents[2]
CONFIG = NetworkConfig("10.112.0.0/13", "10.120.0.0/16", dns_domain="fairway.internal", ipv6_prefix="fd00:f00d::/96")
CLIENT = "198.51.100.50"
RESENT_WITHIN_A_SECOND = 2  # of a connection that lasts: TCP sends again after 0.2, 0.6 and 1.4 s
TRIES_MAX = 6  # of what must be quick, on a machine that is busy with something else now and then
DEADLINE_SECONDS = 60.0  # for what comes soon: on a busy machine each step may take seconds
_TCP_INFO_BYTES, _TOTAL_RETRANSMITS = 104, 100  # struct tcp_info of linux/tcp.h, and where tcpi_total_retrans is in it


def ipv6(address: str) -> str:
    """Of an address of ours."""
    return ipv6_of(CONFIG.ipv6_prefix, address)


def underlay_ipv6(address: str) -> str:
    """Of a host or client on the underlay, beside its IPv4 address."""
    return f"2001:db8:51::{address.rsplit('.', 1)[1]}"


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)


def host(number: int) -> Host:
    return Host(
        f"node{number}",
        f"host-{number}",
        f"198.51.100.{number}",
        f"10.112.{number}.0/24",
        f"10.112.{number}.1",
        tunnel_mac(f"node{number}"),
        number,
        other_addresses=(underlay_ipv6(f"198.51.100.{number}"),),
    )


def endpoint(service: str, slot: int, on: int, address: str, network: str, ready: bool = True) -> Endpoint:
    return Endpoint(f"{service}{slot}", f"{service}.{slot}", f"id-{service}", f"node{on}", address, ready, (network,))


HOSTS = tuple(host(number) for number in (1, 2, 3))
NETWORKS = (
    NetworkInfo("A", 1, "default", "shop", "default"),
    NetworkInfo("B", 2, "default", "blog", "default", internal=True),
)
FRONTENDS = (
    Frontend(
        "id-web",
        "web",
        "shop",
        "default",
        "10.120.0.1",
        (Port("tcp", 80, 8080), Port("udp", 81, 8081)),
        ("A",),
        (("A", "www"),),
    ),
    Frontend("id-one", "one", "shop", "default", "10.120.0.2", (Port("tcp", 80, 8082),), ("A",)),
    Frontend("id-none", "none", "shop", "default", "10.120.0.3", (Port("tcp", 80, 8083),), ("A",)),
    Frontend("id-blog", "blog", "blog", "default", "10.120.0.4", (Port("tcp", 80),), ("B",)),
)
ENDPOINTS = (
    endpoint("web", 1, 1, "10.112.1.11", "A"),
    endpoint("web", 2, 2, "10.112.2.11", "A"),
    endpoint("web", 3, 3, "10.112.3.11", "A"),
    endpoint("one", 1, 3, "10.112.3.12", "A"),
    endpoint("blog", 1, 2, "10.112.2.12", "B"),
)


class HostProcess:
    def __init__(self, folder: Path, upstream: list[str], prefix: str = "fw", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.net.host_process", str(folder), *upstream],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "FAIRWAY_TEST_PREFIX": prefix,
                "PATH": os.environ.get("FAIRWAY_TEST_HOST_PATH", os.environ["PATH"]),
                **environment,
            },
        )
        self.prefix = prefix
        self.namespace = Path(f"/proc/{self.process.pid}/ns/net")
        self._receive()

    def start(self) -> None:
        self._send("start")
        self._receive()

    def restart(self) -> None:
        """Ends the `Network` and makes a new one in the same namespace, as a restart of the daemon does."""
        self._send("restart")
        self._receive()

    def call(self, method: str, *arguments: Any) -> Any:
        self._send(base64.b64encode(pickle.dumps((method, arguments))).decode())
        return self._receive()

    def shell(self, command: str) -> str:
        return shell(self.namespace, command)

    def stop(self) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _send(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _receive(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the host's process ended"
        good, value = pickle.loads(base64.b64decode(line))
        assert good, value
        return value


def _run(namespace: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = ["nsenter", f"--net={namespace}", "sh", "-ec", command]
    return subprocess.run(words, text=True, capture_output=True, timeout=DEADLINE_SECONDS)


def shell(namespace: Path, command: str) -> str:
    done = _run(namespace, command)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def succeeds(namespace: Path, command: str) -> bool:
    return _run(namespace, command).returncode == 0


def wait_until_carried(namespace: Path, interface: str) -> None:
    """An interface whose other end has just come up drops packets for a moment."""
    wait_until(lambda: succeeds(namespace, f"ip -o link show {interface} | grep -q 'state UP'"), f"{interface} is up")


def plain(address: str) -> str:
    """An IPv4 address that a socket for both families shows, as such."""
    return address.removeprefix("::ffff:")


class Server:
    """Answers every TCP connection on `port` and datagram on the next with its name and the asker's address."""

    def __init__(self, namespace: Path, name: str, port: int = 80) -> None:
        self.name = name
        self._listener = within_namespace(
            namespace, lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        self._datagrams = within_namespace(namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self._datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._datagrams.bind(("::", port + 1))
        self._open: list[socket.socket] = []
        self._threads = [
            threading.Thread(target=self._accept, daemon=True),
            threading.Thread(target=self._datagram, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, peer[0]), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(f"{self.name} {plain(peer)}\n".encode())
            while data := connection.recv(4096):
                connection.sendall(data)

    def _datagram(self) -> None:
        while True:
            try:
                data, peer = self._datagrams.recvfrom(4096)
                if not data:
                    return
                self._datagrams.sendto(f"{self.name} {plain(peer[0])}\n".encode(), peer)
            except OSError:
                return

    def close(self) -> None:
        for each in (self._listener, self._datagrams, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in (self._listener, self._datagrams, *self._open):
            each.close()


def connect(namespace: Path, address: str, port: int = 80, timeout: float = DEADLINE_SECONDS) -> socket.socket:
    return within_namespace(namespace, lambda: socket.create_connection((address, port), timeout))


def resent(connection: socket.socket) -> int:
    """How often TCP sent something again: by this one sees what is late, however late a busy program looks."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("=I", info, _TOTAL_RETRANSMITS)[0])


def refused_at_once(namespace: Path, address: str, port: int = 80) -> None:
    """Asserts that the first packet is answered so; TCP would send the next one after a second."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with within_namespace(namespace, partial(socket.socket, family)) as asking:
        asking.settimeout(DEADLINE_SECONDS)
        with pytest.raises(ConnectionRefusedError):
            asking.connect((address, port))
        assert not resent(asking), f"{address} port {port}: refused after some packets only"


def ask(namespace: Path, address: str, port: int = 80) -> tuple[str, str]:
    """(who answered, whom it saw) over TCP."""
    with connect(namespace, address, port) as connection, connection.makefile() as lines:
        name, peer = lines.readline().split()
        return name, peer


def ask_by_udp(namespace: Path, address: str, port: int, timeout: float = DEADLINE_SECONDS) -> tuple[str, str]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with within_namespace(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM)) as datagrams:
        datagrams.settimeout(timeout)
        datagrams.connect((address, port))
        datagrams.send(b"who?")
        name, peer = datagrams.recv(4096).decode().split()
        return name, peer


class World:
    """Three hosts, an outside client on the underlay, and the tasks of ENDPOINTS with a server each."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        """`prefix`: of the hosts' interfaces, with a number; where they make what the machine has one name space of."""
        self.hosts: list[HostProcess] = []
        self.tasks: dict[str, Path] = {}
        self.servers: list[Server] = []
        self._namespaces = HeldNamespaces()
        try:
            self.switch = self._namespaces.new()
            self.client = self._namespaces.new()
            shell(self.switch, "ip link add br0 type bridge && ip link set br0 up")
            self._plug(self.client, CLIENT)
            for each in HOSTS:
                own = f"{prefix}{each.ordinal}" if prefix else "fw"
                process = HostProcess(folder / each.name, [CLIENT], own)
                self.hosts.append(process)
                self._plug(process.namespace, each.address)
            for process in self.hosts:
                process.start()
            self.desired = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS)
            self.apply()
            for task in ENDPOINTS:
                self._run_task(task)
        except BaseException:
            self.close()
            raise

    def apply(self, **changes: Any) -> None:
        """Applies the desired state with `changes` on every host; later calls start from the original again."""
        desired = replace(self.desired, **changes)
        for number, process in enumerate(self.hosts):
            local = desired.hosts[number] if number < len(desired.hosts) else HOSTS[number]
            tasks = tuple(
                LocalTask(each.task_id, each.address, each.networks, service_id=each.service_id)
                for each in ENDPOINTS
                if each.node_id == local.node_id
            )
            process.call("apply", replace(desired, local=local, tasks=tasks))

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for process in self.hosts:
            with contextlib.suppress(Exception):
                for task_id in process.call("list_task_networks"):
                    process.call("delete_task_network", task_id)
            process.stop()
        self._namespaces.close()

    def _run_task(self, task: Endpoint) -> None:
        process = self.hosts[int(task.node_id[-1]) - 1]
        namespace = Path(process.call("create_task_network", task.task_id, task.address))
        self.tasks[task.task_id] = namespace
        self.servers.append(Server(namespace, task.task_name))

    def _plug(self, namespace: Path, address: str) -> None:
        pid, number = namespace.parts[2], address.rsplit(".", 1)[1]
        shell(
            self.switch,
            f"ip link add p{number} type veth peer name eth0 netns {pid}; ip link set p{number} master br0 up",
        )
        shell(
            namespace,
            f"ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up;"
            f"ip addr add {underlay_ipv6(address)}/64 dev eth0 nodad",
        )
        wait_until_carried(self.switch, f"p{number}")


@contextlib.contextmanager
def running_world(folder: Path, prefix: str = "") -> Iterator[World]:
    world = World(folder, prefix)
    try:
        yield world
    finally:
        world.close()
