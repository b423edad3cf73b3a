"""A wall clock of its own for each host's fairwayd, so that it can be moved without harm to anything else.

The machine's clock is everybody's, time namespaces (time_namespaces(7)) have none of their own for the wall
clock, and libfaketime 0.9.10 breaks Python's time.sleep. So fairwayd runs from a folder with this tree and a
`sitecustomize` that adds an offset, read from a file, to `time.time` and `time.time_ns`: all that its own code
takes the wall clock from. OpenSSL and what is written in C still see the machine's. Monotonic time, by which
consensus goes, cannot be set on Linux either.
"""

from __future__ import annotations

from pathlib import Path

from lab.cluster import Lab

ROOT = Path(__file__).parents[2]
PACKAGES = ("proto", "raft", "net", "storage", "runtime", "daemon")
_SITE = """
import time
_real_ns, _real_monotonic = time.time_ns, time.monotonic
_until, _offset_ns = 0.0, 0

def _time_ns():
    global _until, _offset_ns
    if _real_monotonic() >= _until:
        _until = _real_monotonic() + 0.1
        try:
            with open("/etc/fairway/clock-offset-ms") as file:
                _offset_ns = int(file.read() or 0) * 1_000_000
        except (OSError, ValueError):
            pass
    return _real_ns() + _offset_ns

time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
"""


def own_clock_build(folder: Path) -> Path:
    """This tree, for `Lab.make`, with a clock that `set_offset` moves."""
    build = folder / "own-clock"
    build.mkdir()
    for package in PACKAGES:
        (build / package).symlink_to(ROOT / package)
    (build / "sitecustomize.py").write_text(_SITE)
    return build


def set_offset(lab: Lab, host: str, milliseconds: int) -> None:
    """Moves the host's clock to so much beyond (or, negative, before) the machine's."""
    (lab.paths.host_state(host) / "etc/clock-offset-ms").write_text(str(milliseconds))
