"""Three members of ours, each a process with a folder on the disk, speaking mutual TLS over loopback."""

from __future__ import annotations

import contextlib
import json
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.raft.certificates import write_certificates
from bench.raft.load import Load
from lab.layout import LabError

NAMES = ("a", "b", "c")
ANSWER_SECONDS_MAX = 300.0
LEADER_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02
PORTS = range(10_000, 32_000)  # below those that the kernel gives to connections


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody has, and that no connection is given before they are listened on."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


class MemberProcess:
    """A running bench.raft.member_process."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.raft.member_process", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.pid = self._process.pid

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends a command; `answer` gets what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds_max: float = ANSWER_SECONDS_MAX) -> dict[str, Any]:
        """The next answer; LabError where none comes, or where the member could not do it."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds_max)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise LabError(f"a member gave no answer within {seconds_max:.0f} s (status {self._process.poll()})")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise LabError(f"a member refused: {answer['refused']}")
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.answer()

    def kill(self) -> None:
        """As a power cut ends it; safe to repeat."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class FairwayMembers:
    """A cluster of three; leaving the `with` block ends and removes it."""

    name = "fairway"

    def __init__(self, folder_above: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-members-", dir=folder_above))
        self._ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self._processes: dict[str, MemberProcess] = {}

    def __enter__(self) -> FairwayMembers:
        try:
            write_certificates(self._folder, list(NAMES))
            for name in NAMES:
                self.start(name)
            for name in NAMES[1:]:
                self._add_voter(name)
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
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, name: str) -> float:
        """Starts a member from its folder; seconds until its state is loaded."""
        began = time.monotonic()
        arguments = {
            "folder": str(self._folder),
            "node_id": name,
            "peers": self._ports,
            "bootstrap": name == "a",
        }
        process = self._processes[name] = MemberProcess(arguments)
        return float(process.answer()["started"]) - began

    def _add_voter(self, name: str) -> None:
        deadline = time.monotonic() + LEADER_SECONDS_MAX
        while True:
            try:
                self.leader.ask("add_voter", node_id=name)
                return
            except LabError:  # on a busy machine the leadership may move meanwhile
                if time.monotonic() > deadline:
                    raise

    def _wait_leader(self, among: str) -> str:
        deadline = time.monotonic() + LEADER_SECONDS_MAX
        while time.monotonic() < deadline:
            for name in among:
                status = self._processes[name].ask("status")
                if status["role"] == "leader" and status["quorum"]:
                    return name
            time.sleep(POLL_SECONDS)
        raise LabError(f"no member leads after {LEADER_SECONDS_MAX:.0f} s")

    @property
    def leader(self) -> MemberProcess:
        """The process of the member that leads."""
        return self._processes[self._wait_leader("".join(NAMES))]

    def term(self) -> int:
        """The leader's term."""
        return int(self.leader.ask("status")["term"])

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    def write(self, clients: int, seconds: float) -> Load:
        return Load(**self.leader.ask("write", clients=clients, seconds=seconds))

    def read(self, clients: int, seconds: float) -> Load:
        return Load(**self.leader.ask("read", clients=clients, seconds=seconds))

    def fill(self, count: int) -> None:
        self.leader.ask("fill", count=count)

    def failover_seconds(self) -> float:
        """Kills the leader; seconds until a write is acknowledged by another. The dead one starts again."""
        leader = self._wait_leader("".join(NAMES))
        others = [self._processes[name] for name in NAMES if name != leader]
        for process in others:
            process.tell("first_write", seconds_max=LEADER_SECONDS_MAX)
        killed = time.monotonic()
        self._processes[leader].kill()
        answers = [process.answer()["at"] for process in others]
        self.start(leader)
        moments = [float(moment) for moment in answers if moment is not None]
        if not moments:
            raise LabError(f"no write was acknowledged within {LEADER_SECONDS_MAX:.0f} s of the leader's end")
        return min(moments) - killed

    def restart_seconds(self) -> float:
        """Ends a follower and starts it again; seconds from its exec until its state is loaded."""
        leader = self._wait_leader("".join(NAMES))
        follower = next(name for name in NAMES if name != leader)
        self._processes[follower].kill()
        return self.start(follower)

    def term_after_burning(self, seconds: float) -> tuple[int, int]:
        """The term before and after the leader's main thread was busy for so long."""
        before = self.term()
        self.leader.ask("burn", seconds=seconds)
        return before, self.term()
