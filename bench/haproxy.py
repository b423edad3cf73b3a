"""HAProxy from Debian in TCP mode, in a lab host's network; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lab import debian_packages
from lab.cluster import Lab
from lab.layout import LabError

READY_SECONDS_MAX = 10.0
_SETTINGS = """
global
    maxconn 4000
defaults
    mode tcp
    balance random
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen bench
    bind {address}:{port}
"""


class HaProxy:
    """Spreads connections to `address`:`port` over `backends`; leaving the `with` block ends it."""

    def __init__(self, lab: Lab, host: str, address: str, port: int, backends: Sequence[str]) -> None:
        self._lab, self._host, self._port = lab, host, port
        self._tree = debian_packages.unpacked("haproxy", ["haproxy"])
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-haproxy-"))
        servers = "".join(f"    server s{number} {backend}:{port}\n" for number, backend in enumerate(backends))
        (self._folder / "haproxy.cfg").write_text(_SETTINGS.format(address=address, port=port) + servers)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HaProxy:
        libraries = ":".join(str(folder) for folder in debian_packages.library_folders(self._tree))
        program = str(self._tree / "usr/sbin/haproxy")
        command = ["env", f"LD_LIBRARY_PATH={libraries}", program, "-db", "-f", str(self._folder / "haproxy.cfg")]
        # In the host's network only: its file system is not this machine's.
        pid = self._lab.process_ids(self._host)["fairwayd"]
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/proc/{pid}/ns/net", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("wb"),
        )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while f":{self._port} " not in self._listening(pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self._folder / "log").read_text().strip()[-500:]
                self._stop()
                raise LabError(f"haproxy did not start: {words}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _listening(self, pid: int) -> str:
        return subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Hltn"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
