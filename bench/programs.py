"""Runs a program of one side, to its end or while something else does, and says in words why where it fails."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.layout import LabError

ROOT = Path(__file__).parent.parent
PROGRAM_SECONDS_MAX = 120.0
WAIT_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02
_WORDS_MAX = 500  # characters of a failed program's own
_CONTAINERD = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "{folder}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
"""


def output_of(argv: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> str:
    """What it prints, run in the source tree; `name`: as an error calls it. Raises LabError."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=PROGRAM_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name} took longer than {PROGRAM_SECONDS_MAX:.0f} s") from error
    if done.returncode != 0:
        raise LabError(f"{name} failed: {(done.stderr or done.stdout).strip()[-_WORDS_MAX:]}")
    return done.stdout


def wait(
    condition: Callable[[], bool], what: str, seconds_max: float = WAIT_SECONDS_MAX, poll_seconds: float = POLL_SECONDS
) -> None:
    """Until `condition` holds. Raises LabError, which names `what` was waited for."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds_max:.0f} s in vain: {what}")
        time.sleep(poll_seconds)


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block is left; `log` gets what it prints."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS_MAX)


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[Path]:
    """The socket of a containerd that keeps all it has in `folder`. Raises LabError with its words."""
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(_CONTAINERD.format(folder=folder))
    socket, log = folder / "c.sock", folder / "log"
    with running(["containerd", "-c", str(folder / "config.toml"), "-l", "warn"], log) as process:
        with contextlib.suppress(LabError):
            wait(lambda: socket.exists() or process.poll() is not None, "containerd listens")
        if not socket.exists() or process.poll() is not None:
            raise LabError(f"containerd does not listen: {log.read_text(errors='replace')[-_WORDS_MAX:]}")
        yield socket
