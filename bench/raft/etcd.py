"""Three etcd members from Debian's etcd-server package, on loopback; nothing is installed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from bench.raft.etcd_client import EtcdClient, EtcdError, etcd_leader
from bench.raft.fairway_members import NAMES, free_ports
from bench.raft.load import Load
from lab import debian_packages
from lab.layout import LabError

READY_SECONDS_MAX = 30.0
WRITE_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02
HEARTBEAT_MS = 100  # etcd's defaults, which are also ours
ELECTION_MS = 1000


class EtcdMembers:
    """A cluster of three; leaving the `with` block ends and removes it."""

    name = "etcd"

    def __init__(self, folder_above: Path) -> None:
        self._program = debian_packages.unpacked("etcd", ["etcd-server"], with_libraries=False) / "usr/bin/etcd"
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-etcd-", dir=folder_above))
        ports = free_ports(2 * len(NAMES))
        self._client_ports = dict(zip(NAMES, ports[: len(NAMES)], strict=True))
        self._peer_ports = dict(zip(NAMES, ports[len(NAMES) :], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> EtcdMembers:
        try:
            for name in NAMES:
                self._launch(name)
            for name in NAMES:
                self._wait_ready(name)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _launch(self, name: str) -> None:
        client = f"http://127.0.0.1:{self._client_ports[name]}"
        peer = f"http://127.0.0.1:{self._peer_ports[name]}"
        everybody = ",".join(f"{one}=http://127.0.0.1:{self._peer_ports[one]}" for one in NAMES)
        words = {
            "name": name,
            "data-dir": str(self._folder / name),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": everybody,
            "initial-cluster-state": "new",
            "heartbeat-interval": str(HEARTBEAT_MS),
            "election-timeout": str(ELECTION_MS),
            "log-level": "error",
            "logger": "zap",
        }
        options = [word for key, value in words.items() for word in (f"--{key}", value)]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(self._program), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                etcd_leader(self._client_ports[name])
            except EtcdError as error:
                if time.monotonic() > deadline or self._processes[name].poll() is not None:
                    words = (self._folder / f"{name}.log").read_text(errors="replace")[-1500:]
                    raise LabError(f"etcd does not answer ({error}): {words}") from error
                time.sleep(POLL_SECONDS)
            else:
                return

    def _leader(self, among: tuple[str, ...] = NAMES) -> str:
        """The member that leads; clients speak to it, which spares etcd the forwarding."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            for name in among:
                try:
                    own, leader = etcd_leader(self._client_ports[name])
                except EtcdError:
                    continue
                if own == leader:
                    return name
            time.sleep(POLL_SECONDS)
        raise LabError(f"no etcd member leads after {READY_SECONDS_MAX:.0f} s")

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    def write(self, clients: int, seconds: float) -> Load:
        return EtcdClient([self._client_ports[self._leader()]]).write(clients, seconds)

    def read(self, clients: int, seconds: float) -> Load:
        return EtcdClient([self._client_ports[self._leader()]]).read(clients, seconds)

    def fill(self, count: int) -> None:
        EtcdClient([self._client_ports[self._leader()]]).fill(count)

    def failover_seconds(self) -> float:
        """Kills the leader; seconds until a put is acknowledged by another. The dead one starts again."""
        leader = self._leader()
        ports = [self._client_ports[name] for name in NAMES if name != leader]
        killed = time.monotonic()
        self._processes[leader].send_signal(signal.SIGKILL)
        self._processes[leader].wait()
        moment = EtcdClient(ports).first_write(WRITE_SECONDS_MAX)
        self._launch(leader)
        self._wait_ready(leader)
        return moment - killed

    def restart_seconds(self) -> float:
        """Ends a follower and starts it again; seconds from its exec until it answers."""
        leader = self._leader()
        follower = next(name for name in NAMES if name != leader)
        self._processes[follower].kill()
        self._processes[follower].wait()
        began = time.monotonic()
        self._launch(follower)
        self._wait_ready(follower)
        return time.monotonic() - began
