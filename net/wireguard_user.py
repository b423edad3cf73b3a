"""WireGuard by `wireguard-go`, for kernels without it: one process a device, configured through its Unix socket.

The processes are not the daemon's: each has a session of its own and goes on when fairwayd ends in whatever way. A
file tells the next fairwayd which process it was; whether a device lives is asked at its socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from net import wireguard_uapi as uapi
from net.errors import NetworkError
from net.foreign_sockets import enlarge_udp_buffers
from net.wireguard_plan import Observed, Peer

PROGRAM = "wireguard-go"
SOCKETS = Path("/var/run/wireguard")  # fixed in wireguard-go
START_SECONDS_MAX = 5.0
END_SECONDS_MAX = 2.0
ANSWER_SECONDS_MAX = 5.0
SOCKETS_SECONDS_MAX = 0.5
_POLL_SECONDS = 0.005
_ANSWER_BYTES_MAX = 16 << 20  # some 300 a peer
_STARTED_FIELD = 19  # of /proc/PID/stat after the name: start time in ticks since boot (proc(5))


class UserSpace:
    """Blocking; not safe for several threads at once. `run_folder` must not outlive a boot."""

    kind = "tun"

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "wireguard"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def lacking() -> str:
        """Why it cannot be used here, in words; empty where it can."""
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not installed: apt-get install {PROGRAM}"
        if not Path("/dev/net/tun").exists():
            return "/dev/net/tun is missing: load the kernel module tun"
        return ""

    def make(self, name: str) -> None:
        """Starts the device's process and waits until it answers. Raises NetworkError."""
        lacking = self.lacking()
        if lacking:
            raise NetworkError(f"make WireGuard device {name}: {lacking}")
        self.remove(name)
        process = subprocess.Popen(
            [PROGRAM, "--foreground", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "silent"},
        )
        self._children[name] = process
        started = _started(process.pid)
        with contextlib.suppress(OSError):  # then it is found by its socket all the same, and ended by it
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._record(name).write_text(json.dumps({"pid": process.pid, "started": started}) + "\n")
        deadline = time.monotonic() + START_SECONDS_MAX
        while self.observe(name) is None:
            code = process.poll()
            if code is not None:
                raise NetworkError(
                    f"make WireGuard device {name}: {PROGRAM} ended with {code}; "
                    f"`LOG_LEVEL=error {PROGRAM} -f {name}` says why"
                )
            if time.monotonic() > deadline:
                self.remove(name)
                raise NetworkError(
                    f"make WireGuard device {name}: {PROGRAM} did not answer within {START_SECONDS_MAX:.0f} s"
                )
            time.sleep(_POLL_SECONDS)

    def observe(self, name: str) -> Observed | None:
        """The device as its process tells; None where nobody answers."""
        with contextlib.suppress(KeyError):
            self._children[name].poll()  # one that has ended leaves no zombie
        try:
            return uapi.read_device(self._ask(name, uapi.GET))
        except (OSError, ValueError):
            return None

    def set_identity(self, name: str, private_key: bytes, port: int) -> None:
        self._set(name, uapi.set_request(private_key=private_key, port=port))

    def set_peers(self, name: str, put: Iterable[Peer], removed: Iterable[bytes], keepalive_seconds: int = 0) -> None:
        """One message. Where it turns keepalives on, the device shakes hands with those peers at once."""
        self._set(name, uapi.set_request(put=put, removed=removed, keepalive_seconds=keepalive_seconds))

    def came_up(self, name: str, port: int) -> None:
        """Once the device's sockets are there, which come a little after it is up, their buffers are enlarged."""
        pid = self._recorded(name)
        deadline = time.monotonic() + SOCKETS_SECONDS_MAX
        while pid is not None and not enlarge_udp_buffers(pid, port) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def remove(self, name: str) -> None:
        """Ends the device's process, and with it the device."""
        pid = self._recorded(name)
        if pid is not None:
            _end(pid, self._children.get(name))
        self._children.pop(name, None)
        with contextlib.suppress(OSError):
            (SOCKETS / f"{name}.sock").unlink()  # a wireguard-go that we have no record of ends by this
        with contextlib.suppress(OSError):
            self._record(name).unlink()

    def _set(self, name: str, request: bytes) -> None:
        try:
            answer = self._ask(name, request)
            code = uapi.read_errno(answer)
        except (OSError, ValueError) as error:
            raise NetworkError(f"configure WireGuard device {name}: {error}") from error
        if code:
            raise NetworkError(f"configure WireGuard device {name}: {PROGRAM} says {os.strerror(code)}")

    def _ask(self, name: str, request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(ANSWER_SECONDS_MAX)
            connection.connect(str(SOCKETS / f"{name}.sock"))
            connection.sendall(request)
            answer = bytearray()
            while not answer.endswith(b"\n\n") and len(answer) < _ANSWER_BYTES_MAX:
                part = connection.recv(1 << 16)
                if not part:
                    break
                answer += part
            return bytes(answer)

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _recorded(self, name: str) -> int | None:
        """The process that was started for a device, if that one still lives."""
        try:
            record = json.loads(self._record(name).read_text())
            pid, started = int(record["pid"]), int(record["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if started and _started(pid) == started else None


def _started(pid: int) -> int:
    """When a process was started, in ticks since boot: with its id it names one process for good. 0: there is none,
    or one that has ended and that nobody has waited for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in ("Z", "X") else int(fields[_STARTED_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


def _end(pid: int, child: subprocess.Popen[bytes] | None) -> None:
    started = _started(pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + END_SECONDS_MAX
        while time.monotonic() < deadline:
            if child is not None and child.pid == pid:
                child.poll()
            if _started(pid) != started:
                return
            time.sleep(_POLL_SECONDS)
