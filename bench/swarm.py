"""Docker Swarm from Debian's docker.io, a single node, in namespaces of its own; nothing is installed.

The peer gets fair conditions: images are local and no registry is asked (--no-resolve-image, and
DOCKER_SERVICE_PREFER_OFFLINE_IMAGE), tasks have no published ports, and tasks are counted through its API.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.programs import output_of
from lab import cgroups, debian_packages
from lab.layout import LabError
from lab.oci_archive import RootFilesystem
from lab.processes import mark, namespace_pids

IMAGE = "bench:1"
START_SECONDS_MAX = 60.0
REMOVAL_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
_API = "/v1.41"
# What dockerd calls by these names, all served by one program of the iptables package.
_IPTABLES = (
    "iptables",
    "ip6tables",
    "iptables-save",
    "ip6tables-save",
    "iptables-restore",
    "ip6tables-restore",
)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Swarm:
    """A running dockerd with a swarm of one node; leaving the `with` block ends all of it."""

    def __init__(self, root: RootFilesystem) -> None:
        self._root = root
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-swarm-", dir="/var/tmp"))
        self._cgroup = f"/{self._folder.name}"
        self._tree = debian_packages.unpacked("docker", ["docker.io", "iptables", "tini"])
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = self._folder / "docker.sock"

    def __enter__(self) -> Swarm:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _environment(self) -> dict[str, str]:
        libraries = f"{self._tree}/usr/lib/{platform.machine()}-linux-gnu"
        return {
            "PATH": f"{self._folder}/bin:{self._tree}/usr/sbin:{self._tree}/usr/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": libraries,
            "XTABLES_LIBDIR": f"{libraries}/xtables",
            "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1",
            "DOCKER_HOST": f"unix://{self._socket}",
            "HOME": str(self._folder),
        }

    def _start(self) -> None:
        links = self._folder / "bin"
        links.mkdir()
        for name in _IPTABLES:
            (links / name).symlink_to(self._tree / "usr/sbin/xtables-nft-multi")
        script = (
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && hostname bench && ip link set lo up && "
            "ip link add under0 type veth peer name under1 && ip address add 10.98.0.1/24 dev under0 && "
            "ip link set under0 up && ip link set under1 up && "
            f"exec dockerd --data-root {self._folder}/data --exec-root /run/docker "
            f"--host unix://{self._socket} --pidfile /run/docker.pid --cgroup-parent {self._cgroup} --log-level warn"
        )
        spaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", *spaces, "--", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise LabError(f"dockerd does not answer: {words}")
            time.sleep(POLL_SECONDS)
        self.docker("swarm", "init", "--advertise-addr", "10.98.0.1")
        layer = self._folder / "rootfs.tar"
        layer.write_bytes(self._root.layer())
        self.docker("import", str(layer), IMAGE)

    def _answers(self) -> bool:
        try:
            return bool(self._get("/_ping", plain=True) == "OK")
        except OSError:
            return False

    def _get(self, path: str, plain: bool = False) -> Any:
        connection = _UnixConnection(self._socket)
        try:
            connection.request("GET", _API + path)
            body = connection.getresponse().read().decode()
        finally:
            connection.close()
        return body if plain else json.loads(body)

    def docker(self, *words: str) -> str:
        """Runs Docker's command line; LabError with its words where it fails."""
        argv = [str(self._tree / "usr/bin/docker"), *words]
        return output_of(argv, f"`docker {' '.join(words)}`", self._environment())

    def create(self, name: str, count: int, command: list[str]) -> None:
        """`docker service create`, which returns as soon as the service is known."""
        options = ["--detach", "--no-resolve-image", "--stop-grace-period", "0s", "--replicas", str(count)]
        self.docker("service", "create", "--name", name, *options, IMAGE, *command)

    def roll(self, name: str, count: int, command: list[str], round: str, parallelism: int, order: str) -> None:
        """Creates the service, or updates it, so that its tasks have `round` in their environment."""
        how = ["--detach", "--no-resolve-image", "--update-parallelism", str(parallelism), "--update-order", order]
        if self._get(f"/services?filters={urllib.parse.quote(json.dumps({'name': {name: True}}))}"):
            self.docker("service", "update", *how, "--env-add", f"ROUND={round}", name)
            return
        options = [*how, "--stop-grace-period", "0s", "--replicas", str(count), "--env", f"ROUND={round}"]
        self.docker("service", "create", "--name", name, *options, IMAGE, *command)

    def rounds_running(self, name: str) -> dict[str, int]:
        """How many tasks of the service run, by their round, as the manager knows."""
        tasks = self._get(f"/tasks?filters={urllib.parse.quote(json.dumps({'service': {name: True}}))}")
        running = [task["Spec"]["ContainerSpec"]["Env"] for task in tasks if task["Status"]["State"] == "running"]
        return dict(Counter(environment[0].removeprefix("ROUND=") for environment in running))

    def running_count(self, name: str) -> int:
        """Tasks of the service that run, as the manager knows."""
        wanted = urllib.parse.quote(json.dumps({"service": {name: True}, "desired-state": {"running": True}}))
        return sum(task["Status"]["State"] == "running" for task in self._get(f"/tasks?filters={wanted}"))

    def remove(self, name: str) -> None:
        """Removes the service and waits until its containers are gone."""
        self.docker("service", "rm", name)
        deadline = time.monotonic() + REMOVAL_SECONDS_MAX
        while self._get("/containers/json?all=true"):
            if time.monotonic() > deadline:
                raise LabError(f"Swarm did not remove {name} within {REMOVAL_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def daemon_pids(self) -> dict[str, list[int]]:
        """ "dockerd", "containerd" and "shims" -> process ids on the machine."""
        found: dict[str, list[int]] = {"dockerd": [], "containerd": [], "shims": []}
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in namespace_pids(mark(int(children[0]))).values():
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            kind = "shims" if name.startswith("containerd-shim") else name
            found.setdefault(kind, []).append(pid)
        return found

    def _stop(self) -> None:
        if self._process is not None:
            # --kill-child: the first process of the PID namespace goes with it, and so do all others.
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        left = cgroups.remove(self._cgroup)
        shutil.rmtree(self._folder, ignore_errors=True)
        if left or self._folder.exists():
            raise LabError(f"this of Docker's could not be removed: {', '.join([*left, str(self._folder)])}")
