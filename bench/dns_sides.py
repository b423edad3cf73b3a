"""The name servers that are compared, each with the same names and one thread: Fairway's, dnsmasq, unbound."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import dns_names as names
from bench.process_cost import cpu_seconds
from bench.programs import wait
from lab import debian_packages
from lab.layout import LabError
from net import dns_message as message
from net.addresses import GATEWAY_ADDRESS
from net.namespaces import within_namespace

CLIENTS = tuple(f"10.112.1.{number}" for number in range(11, 19))
READY_SECONDS_MAX = 30.0
_ROOT = Path(__file__).resolve().parents[1]


class Wire:
    """Two network namespaces and a veth between them: the server's, and that of the clients."""

    def __init__(self) -> None:
        self._holders = [subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for _ in range(2)]
        own = Path("/proc/self/ns/net").readlink()
        self.server, self.client = (Path(f"/proc/{each.pid}/ns/net") for each in self._holders)
        for namespace in (self.server, self.client):
            wait(lambda namespace=namespace: namespace.readlink() != own, "a network namespace", READY_SECONDS_MAX)  # type: ignore[misc]
        client = self._holders[1].pid
        pools = "10.112.0.0/13"
        _run(
            self.server,
            f"ip link set lo up; ip link add wire type veth peer name wire netns {client}; "
            f"ip link set wire up; ip addr add {GATEWAY_ADDRESS}/32 dev wire; ip route add {pools} dev wire",
        )
        addresses = "; ".join(f"ip addr add {address}/32 dev wire" for address in CLIENTS)
        route = f"ip route add {GATEWAY_ADDRESS}/32 dev wire"
        _run(self.client, f"ip link set lo up; ip link set wire up; {addresses}; {route}")

    def close(self) -> None:
        for each in self._holders:
            each.kill()
            each.wait()


class Server:
    """A running server; `cpu_seconds` is what it has used."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self._said = 0

    def cpu_seconds(self) -> float:
        return cpu_seconds([self.process.pid])

    def lateness_ms(self) -> list[float]:
        """What a server of ours has said since the last call: by how much another thread of it woke late."""
        lines = [line.split() for line in self._log.read_text().splitlines() if line.startswith("late ")]
        fresh, self._said = lines[self._said :], len(lines)
        return [float(words[1]) for words in fresh]


@contextlib.contextmanager
def running(side: str, wire: Wire) -> Iterator[Server]:
    """The server of a side, ready, and ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fairway-dns-"))
    command, libraries = {"fairway": _fairway, "dnsmasq": _dnsmasq, "unbound": _unbound}[side](folder)
    environment = dict(os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {}))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["nsenter", f"--net={wire.server}", *command],
            cwd=_ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        wait(lambda: process.poll() is not None or _answers(wire), f"{side} answers", READY_SECONDS_MAX)
        if process.poll() is not None:
            raise LabError(f"{side} ended: {(folder / 'log').read_text().strip()[-500:]}")
        yield Server(process, folder / "log")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _fairway(folder: Path) -> tuple[list[str], str]:
    return [sys.executable, "-m", "bench.dns_server_process", "--heartbeats"], ""


def _dnsmasq(folder: Path) -> tuple[list[str], str]:
    tree = debian_packages.unpacked("dnsmasq", ["dnsmasq-base"])
    hosts = "".join(f"{address} {name}\n" for name, address in names.records())
    (folder / "hosts").write_text(hosts)
    settings = [
        "no-resolv",
        "no-hosts",
        "no-daemon",
        "bind-interfaces",
        f"listen-address={GATEWAY_ADDRESS}",
        f"local=/{names.DOMAIN}/",
        "local=/in-addr.arpa/",
        f"addn-hosts={folder}/hosts",
        "cache-size=10000",  # the greatest that its manual allows
        "user=root",
        "group=root",
        f"pid-file={folder}/pid",
    ]
    (folder / "dnsmasq.conf").write_text("\n".join(settings) + "\n")
    return [str(tree / "usr/sbin/dnsmasq"), "-C", str(folder / "dnsmasq.conf")], libraries_of(tree)


def _unbound(folder: Path) -> tuple[list[str], str]:
    tree = debian_packages.unpacked("unbound", ["unbound"])
    lines = [
        "server:",
        f"interface: {GATEWAY_ADDRESS}",
        "access-control: 0.0.0.0/0 allow",
        "num-threads: 1",
        "do-daemonize: no",
        'chroot: ""',
        'username: ""',
        f'directory: "{folder}"',
        f'pidfile: "{folder}/pid"',
        "use-syslog: no",
        'module-config: "iterator"',
        f'local-zone: "{names.DOMAIN}." static',
        'local-zone: "10.in-addr.arpa." static',
    ]
    for name, address in names.records():
        kind = "AAAA" if ":" in address else "A"
        lines.append(f'local-data: "{name}. 5 IN {kind} {address}"')
        if kind == "A":
            lines.append(f'local-data-ptr: "{address} 5 {name}"')
    lines += ["remote-control:", "control-enable: no"]
    (folder / "unbound.conf").write_text("\n".join(lines) + "\n")
    return [str(tree / "usr/sbin/unbound"), "-c", str(folder / "unbound.conf")], libraries_of(tree)


def libraries_of(tree: Path) -> str:
    """For LD_LIBRARY_PATH: the libraries of unpacked packages, but not their C library."""
    return ":".join(str(folder) for folder in debian_packages.library_folders(tree))


def _answers(wire: Wire) -> bool:
    with within_namespace(wire.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
        asker.bind((CLIENTS[0], 0))
        asker.settimeout(0.2)
        with contextlib.suppress(OSError):
            asker.sendto(message.write_query(1, names.complete(0), message.TYPE_A), (GATEWAY_ADDRESS, 53))
            return message.response_code(asker.recv(512)) == message.NO_ERROR
    return False


def _run(namespace: Path, command: str) -> None:
    words: Sequence[str] = ["nsenter", f"--net={namespace}", "sh", "-ec", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=READY_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise LabError(f"`{command}` failed: {done.stderr.strip()}")
