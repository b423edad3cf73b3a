"""A lab with an application on it, driven by the real command line, for tests of the whole."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cli.main
from cli import contexts
from lab import images
from lab.cluster import Lab
from lab.formation import FormedCluster
from lab.layout import LabError

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS_MAX = 120.0
WAIT_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05
SHORT_LOAD_SECONDS_MAX = 5
# Commands whose input and output are more than lines of text.
STREAMING = frozenset(["attach", "cp", "debug", "exec", "logs", "port-forward", "run", "stats"])
APP = """
name: site
services:
  web:
    image: static-web:1
    ports: ["8080:8000"]
    stop_grace_period: 2s
    deploy:
      replicas: {replicas}
"""


class Failed(AssertionError):
    """A command of the test failed; the message has all it printed."""


class Cluster:
    """A lab's cluster as an operator on one of its hosts sees it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self._leaving: set[str] = set()

    @property
    def formed(self) -> FormedCluster | None:
        """The first operator's key; None where the lab was up before."""
        return self.lab.formed

    def fairway(
        self, *arguments: str, host: str = "host-1", ok: bool = True, text_in: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line against a host's own daemon; Failed where its exit status is not 0."""
        environment = {
            "FAIRWAY_SOCKET": str(self.lab.socket(host)),
            "FAIRWAY_CONFIG": str(self.folder / "config"),
            "NO_COLOR": "1",
        }
        if arguments[0] in STREAMING or threading.current_thread() is not threading.main_thread():
            done = subprocess.run(
                [sys.executable, "-m", "cli.main", *arguments],
                env=os.environ | environment,
                input=text_in,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS_MAX,
                check=False,
            )
        else:
            done = _in_this_process(arguments, environment, text_in)
        if ok and done.returncode != 0:
            said = done.stdout + done.stderr
            if "fairwayd's log on this host says why" in said:
                said += self.lab.run_in(host, ["tail", "-n", "60", "/var/log/fairway/fairwayd.log"], check=False).stdout
            raise Failed(f"fairway {' '.join(arguments)}: exit {done.returncode}\n{said}")
        return done

    def from_client(
        self, certificate: bytes, key: bytes, authority: bytes, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line in the client's namespace, over TCP to host-1's API port with these PEM texts."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        pem = {"certificate": certificate, "key": key, "ca": authority}
        address = f"{self.lab.address('host-1')}:7443"
        contexts.add(contexts.read(folder), "there", [address], pem)
        environment = {name: value for name, value in os.environ.items() if name != "FAIRWAY_SOCKET"}
        environment |= {"FAIRWAY_CONFIG": str(folder), "NO_COLOR": "1"}
        command = [sys.executable, "-m", "cli.main", *arguments]
        return self.lab.run_in("client", command, check=False, env=environment, cwd=ROOT)

    def json(self, *arguments: str, host: str = "host-1", codes: tuple[int, ...] = (0,)) -> Any:
        """What a command prints with -o json; Failed where its exit status is none of `codes`."""
        done = self.fairway(*arguments, "-o", "json", host=host, ok=False)
        if done.returncode not in codes:
            raise Failed(f"fairway {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def load_image(self, name: str, host: str = "host-1") -> None:
        """Builds an image of lab/images.py and gives it to the cluster; returns when every host has it."""
        self.fairway("image", "load", str(images.build(name)), host=host)
        self.wait(
            lambda: all(len(image["node_ids"]) == len(self.lab.hosts()) for image in self.json("image", "ls")),
            f"every host has image {name}",
        )

    def deploy(self, text: str, host: str = "host-1", ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Deploys a Compose file with this text and waits until it is done."""
        path = self.folder / "compose.yaml"
        path.write_text(text)
        return self.fairway("deploy", str(path), "--timeout", "60s", host=host, ok=ok)

    def remove(self, app: str) -> None:
        """Removes an app and its volumes and waits until nothing of it is left; fine where it is not there."""
        self.let_go(app)
        self.settle()

    def let_go(self, app: str) -> None:
        """Removes an app and its volumes without waiting for their end; fine where it is not there."""

        def going() -> bool:
            try:
                self.json("rm", app, "--volumes")
            except Failed:  # it is not there, or nobody leads just now
                return app not in {_meta(row)["name"] for row in self.json("ls")}
            self._leaving.add(app)
            return True

        self.wait(going, f"{app} is on its way out")

    def settle(self) -> None:
        """Waits until nothing is left of what was removed."""
        if self._leaving:
            self.wait(lambda: not self._leaving & {_meta(row)["name"] for row in self.json("ls")}, "apps are gone")
            self._leaving.clear()

    def listing(self) -> dict[str, list[str]]:
        """Everything that an operator can list, by id: what a refused request must leave as it was."""
        self.settle()
        found: dict[str, list[str]] = {}
        for what in ("ls", "ps -a", "node ls", "image ls", "token ls"):
            rows = self.json(*what.split())
            found[what] = sorted(f"{_meta(row)['id']} {_meta(row)['name']} {row.get('node_ids', '')}" for row in rows)
        found["status"] = [str(self.json("status")[count]) for count in ("app_count", "service_count")]
        return found

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """AssertionError where what is done inside leaves a trace in the listings."""
        before = self.listing()
        yield
        assert self.listing() == before

    def refused(self, *arguments: str, host: str = "host-1") -> str:
        """What a command that must fail says. It must not be a stack trace."""
        done = self.fairway(*arguments, host=host, ok=False)
        assert done.returncode != 0, f"fairway {' '.join(arguments)} was to fail, and printed {done.stdout}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def serving(self, service: str) -> set[str]:
        """Addresses that balancers send traffic of a service to."""
        return {one["address"] for one in self.json("show", service)["endpoints"] if one["ready"]}

    def wait_served(self, service: str, port: int) -> None:
        """Waits until the balancers of every host take connections to a service's VIP: a deploy ends when its tasks are
        ready, and hosts hear of that one after the other."""
        connect = ["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{self.vip(service)}/{port}"]
        hosts = self.lab.hosts()
        self.wait(
            lambda: all(self.lab.run_in(host, connect, check=False).returncode == 0 for host in hosts),
            f"every host sends to {service}",
        )

    def ended_task(self, service: str) -> dict[str, Any]:
        """The task of a service that ended last; waited for."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            ended = [task for task in self.json("ps", service, "-a") if task["status"]["finished_unix_ms"]]
            found[:] = sorted(ended, key=lambda task: task["status"]["finished_unix_ms"])
            return bool(found)

        self.wait(look, f"a task of {service} has ended")
        return found[-1]

    def pending_reasons(self, service: str) -> str:
        """Why tasks of a service have no host, or what they last failed of, as `show` says it."""
        return "; ".join(self.json("show", service)["pending_reasons"])

    def tasks(self, service: str = "", host: str = "host-1") -> list[dict[str, Any]]:
        """Tasks that are wanted, with their state."""
        return list(self.json("ps", *([service] if service else []), host=host))

    def node_names(self, host: str = "host-1") -> dict[str, str]:
        """Node id -> name."""
        return {view["node"]["meta"]["id"]: view["node"]["meta"]["name"] for view in self.json("node", "ls", host=host)}

    def vip(self, service: str, host: str = "host-1") -> str:
        views = self.json("show", service, host=host)
        view = views[0] if isinstance(views, list) else views
        return str(view["service"]["vip"])

    def leader(self, host: str = "host-1") -> str:
        """Name of the host that leads."""
        return self.node_names(host)[self.json("status", host=host)["leader_id"]]

    def has_quorum(self, host: str) -> bool:
        """Whether a host itself says that it hears the cluster's majority."""
        return bool(self.local_status(host)["quorum"])

    def local_status(self, host: str) -> dict[str, Any]:
        """What a host's daemon says of itself, also where it knows of no cluster or has no say in it."""
        done = self.fairway("status", "-o", "json", host=host, ok=False)
        if not done.stdout:
            raise Failed(f"{host} does not say how it is: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)["host"]
        return found

    def restart(self, host: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Another fairwayd runs on the host when this returns, and hears the majority."""
        self.wait(lambda: "fairwayd" in self.lab.process_ids(host), f"fairwayd runs on {host}")
        before = self.lab.restart_daemon(host, number=number)
        self.wait(
            lambda: self.lab.process_ids(host).get("fairwayd", before) != before and self.has_quorum(host),
            f"{host} is back",
        )

    def make_whole(self) -> None:
        """Every host is on, reached and ready again, whatever a test did to them."""
        for host in self.lab.hosts():
            if not self.lab.is_on(host):
                self.lab.start(host)
        self.lab.heal()

        def is_back(view: dict[str, Any]) -> bool:
            """What the leader last heard of a host may be older than its restart; a worker says nothing of itself."""
            node = view["node"]
            return node["state"] == "ready" and (node["role"] == "worker" or self.has_quorum(node["meta"]["name"]))

        self.wait(lambda: all(is_back(view) for view in self.json("node", "ls")), "all are back")

    def wait(self, condition: Callable[[], bool], what: str, seconds_max: float = WAIT_SECONDS_MAX) -> float:
        """Seconds until `condition` held; Failed, naming `what`, where it did not in time."""
        began = time.monotonic()
        last = ""
        while time.monotonic() - began < seconds_max:
            try:
                if condition():
                    return time.monotonic() - began
                last = ""
            except (Failed, LabError, json.JSONDecodeError, LookupError, StopIteration) as error:
                last = str(error) or repr(error)
            time.sleep(POLL_SECONDS)
        raise Failed(f"waited {seconds_max:.0f} s in vain: {what} {last}")

    def ready(self, service: str, count: int, host: str) -> bool:
        """Whether a service has exactly so many ready tasks, all on hosts that are on."""
        names = self.node_names(host)
        ready = [
            task
            for task in self.tasks(service, host)
            if task["status"]["ready"] and task["desired"] == "running" and self.lab.is_on(names[task["node_id"]])
        ]
        return len(ready) == count


def _in_this_process(
    arguments: Sequence[str], environment: dict[str, str], text_in: str
) -> subprocess.CompletedProcess[str]:
    """As a process of its own would, in a twentieth of the time; tests/cli has the real ones."""
    output, errors, given = io.StringIO(), io.StringIO(), io.TextIOWrapper(io.BytesIO(text_in.encode()))
    with (
        unittest.mock.patch.dict(os.environ, environment),
        unittest.mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = cli.main.main(arguments)
        except SystemExit as end:  # of the parser of arguments
            code = end.code if isinstance(end.code, int) else 1
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def run_in_task(cluster: Cluster, target: str, *command: str) -> str:
    """What a command prints in a task, or in the first running task of a service."""
    return cluster.fairway("exec", target, "--", *command).stdout


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    """Of an object, or of a view of a node or app."""
    found: dict[str, Any] = (row.get("node") or (row if "meta" in row else row["app"]))["meta"]
    return found


@contextlib.contextmanager
def steady_load(
    cluster: Cluster, url: str, client: str = "client", rate: int = 100, seconds: int = 120
) -> Iterator[Callable[[], dict[str, Any]]]:
    """A load from a client's namespace, under way inside the block; the yielded function gives its result, at its end
    by itself where it lasts no longer than a few seconds, else at once."""
    command = [sys.executable, "-m", "lab.load", url, "--rate", str(rate), "--seconds", str(seconds), "--json"]
    with tempfile.TemporaryFile("w+") as output:
        process = cluster.lab.popen(
            client, command, stdout=output, cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT))
        )
        try:
            _wait_until_it_sends(process)

            def finish() -> dict[str, Any]:
                if seconds > SHORT_LOAD_SECONDS_MAX:
                    process.terminate()
                process.wait(timeout=SHORT_LOAD_SECONDS_MAX + 30)
                output.seek(0)
                result: dict[str, Any] = json.loads(output.read())
                return result

            yield finish
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait_until_it_sends(load: subprocess.Popen[Any]) -> None:
    """From then on it takes SIGTERM, as proc(5) says: SigCgt."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while load.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{load.pid}/status").read_text()
            if int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << (signal.SIGTERM - 1):
                return
        time.sleep(0.01)
    raise Failed("the load did not begin")
