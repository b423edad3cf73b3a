"""Labs for tests: unique names, state in pytest's folder, down whatever happens."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab import images
from lab.cluster import Lab

# In place of fairwayd: says that it started, and waits.
STAND_IN = ["sh", "-c", "echo started >> /var/lib/fairway/starts; exec sleep 1000000"]
IMAGE = "docker.io/library/static-web:1"


def unique_name() -> str:
    return f"t{secrets.token_hex(4)}"


@contextlib.contextmanager
def mechanical_lab(folder: Path, hosts: int) -> Iterator[Lab]:
    """A lab with real namespaces and containerd, and a stand-in for fairwayd."""
    name = unique_name()
    lab = Lab.make(name, hosts, state_folder=folder / name, daemon_command=STAND_IN)
    with lab:
        yield lab


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds:.0f} s: {what}"
        time.sleep(0.02)


def run_container(lab: Lab, host: str, container: str) -> None:
    """A real container on the host, in the host's control group, with the host's network."""
    wait_until(
        lambda: lab.run_in(host, ["ctr", "version"], check=False).returncode == 0,
        f"containerd on {host} answers",
    )
    archive = images.build("static-web")
    with archive.open("rb") as data:
        lab.run_in(host, ["ctr", "image", "import", "-"], stdin=data)
    lab.run_in(
        host,
        [
            "ctr",
            "run",
            "-d",
            "--net-host",
            "--cgroup",
            f"/fairway-lab-{lab.name}/{host}/{container}",
            IMAGE,
            container,
        ],
    )


def fetch(lab: Lab, origin: str, address: str, timeout_seconds: int = 1) -> str:
    """The page that `address` serves on port 8000, as asked for from host or client `origin`; "" if none."""
    command = ["busybox", "timeout", str(timeout_seconds), "busybox", "wget", "-q", "-O", "-"]
    return lab.run_in(origin, [*command, f"http://{address}:8000/"], check=False).stdout
