"""Empty network namespaces, each kept by a process of its own, for tests."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType

_SECONDS_MAX = 60.0


class HeldNamespaces:
    """A context: those made in it are gone after it, with all that is in them."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []

    def new(self) -> Path:
        """A file for `within_namespace` and `nsenter`; its third part is the id of the process that holds it."""
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._holders.append(holder)
        namespace = Path(f"/proc/{holder.pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + _SECONDS_MAX
        while namespace.readlink() == own:
            assert time.monotonic() < deadline, f"no namespace of its own within {_SECONDS_MAX:.0f} s"
            time.sleep(0.005)
        return namespace

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.wait()
        self._holders.clear()

    def __enter__(self) -> HeldNamespaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
