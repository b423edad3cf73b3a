"""Every line that tasks write while fairwayd is killed: 1,000 a second from each of 50 tasks on three hosts, with
every host's fairwayd killed twice. All must be there, in order, once, and the daemons' memory flat.

There is no peer: Docker's and Podman's logs stop with the daemon or have none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.process_cost import cpu_seconds
from bench.programs import ROOT, output_of, wait
from bench.table import Report, Row
from lab import images
from lab.cluster import Lab
from lab.host import program_folder
from lab.layout import LabError

TASKS = 50
LINES_A_SECOND = 1_000  # of each task
SECONDS = 60
KILLS = 2  # of each host's fairwayd
HOSTS = 3
KILL_PAUSE_SECONDS = 3.0  # with all away at once on few cores, a host would count as down and its tasks be replaced
WAIT_SECONDS_MAX = 120.0
POLL_SECONDS = 0.5
SETTLE_SECONDS = 10.0  # from a daemon's start until its memory is looked at
GROWTH_MB_MAX = 25.0
IMAGE = "shop-web"  # it has a Python
# Writes as many lines as the time asks for, ten milliseconds' at once, and then stays.
_WRITER = """
import os, signal, time
rate, total = {rate}, {total}
begun, count = time.monotonic(), 0
while count < total:
    due = min(total, int((time.monotonic() - begun) * rate) + 1)
    data = b"".join(b"line %08d of a task that writes as fast as it is asked to\\n" % n for n in range(count, due))
    while data:
        data = data[os.write(1, data):]
    count = due
    time.sleep(0.01)
signal.pause()
"""


@dataclass
class Found:
    """What was read of the tasks' logs."""

    expected: int
    read: int = 0
    lost: int = 0
    repeated: int = 0  # or behind a later one
    seconds: float = 0.0  # that reading took


@dataclass
class Cost:
    """Of all hosts' fairwayd while the tasks wrote."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0
    memory_mb: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # host, process -> each second


def measure(_sides: Sequence[str]) -> Report:
    """As the issue's bar says."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab.make(f"bench-{secrets.token_hex(3)}", HOSTS, host_cpu_millis=64_000))
        found, cost = run(lab, TASKS, LINES_A_SECOND, SECONDS, KILLS)
    growth = [statistics.median(seen[-3:]) - seen[0] for seen in cost.memory_mb.values() if len(seen) > 3]
    most = max((value for seen in cost.memory_mb.values() for value in seen), default=0.0)
    cpu = cost.cpu_seconds / cost.seconds * 100
    whole = found.read == found.expected
    lines = f"{TASKS} tasks, {LINES_A_SECOND:,} lines/s each, {SECONDS} s, every fairwayd killed {KILLS} times"
    return Report(
        "logs",
        f"What is kept of {lines}",
        [
            Row("lines read", "lines", [found.read], "written", [found.expected], "", None, "all", whole),
            Row("lost", "lines", [found.lost], "-", [], "", None, "none", not found.lost),
            Row("twice or out of order", "lines", [found.repeated], "-", [], "", None, "none", not found.repeated),
            Row("memory of a fairwayd", "MB RSS", [most], "-", [], "", None),
            Row(
                "its growth while it reads logs",
                "MB",
                growth,
                "-",
                [],
                "",
                None,
                f"at most {GROWTH_MB_MAX:.0f}",
                bool(growth) and max(growth) <= GROWTH_MB_MAX,
            ),
            Row("CPU of all fairwayd together", "% of a core", [cpu], "-", [], "", None),
            Row("`fairway logs` of all of it", "lines/s", [found.read / found.seconds], "-", [], "", None),
        ],
        ["The daemons' starts are part of their CPU; the tasks, their shims and the lab share the machine with them."],
    )


def run(lab: Lab, tasks: int, rate: int, seconds: int, kills: int) -> tuple[Found, Cost]:
    """Writes, kills and reads on a lab whose hosts are up; the app is removed at the end."""
    socket = str(lab.socket(lab.hosts()[0]))
    app = f"logs-{secrets.token_hex(3)}"
    fairway(socket, "image", "load", str(images.build(IMAGE)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(_compose(app, tasks, _WRITER.format(rate=rate, total=rate * seconds)))
        fairway(socket, "deploy", str(file), "--detach")
    try:
        cost = _watch(lab, tasks, seconds, kills)
        return _read(socket, app, tasks, rate * seconds), cost
    finally:
        fairway(socket, "rm", app)


def fairway(socket: str, *words: str) -> str:
    return output_of(
        [str(program_folder() / "fairway"), *words], f"`fairway {words[0]}`", {**os.environ, "FAIRWAY_SOCKET": socket}
    )


def _compose(app: str, tasks: int, script: str) -> str:
    program = "\n".join(f"        {line}" for line in script.strip().splitlines())
    return (
        f"name: {app}\nservices:\n  writer:\n    image: {IMAGE}:1\n    init: false\n    stop_grace_period: 0s\n"
        f"    logging: {{options: {{max-size: 100m}}}}\n"
        f"    entrypoint: [python3, -c]\n    command:\n      - |\n{program}\n    deploy: {{replicas: {tasks}}}\n"
    )


def _watch(lab: Lab, tasks: int, seconds: int, kills: int) -> Cost:
    """Until every task has had its time, with the kills in between, one host after the other."""
    wait(lambda: _running(lab) >= tasks, f"{tasks} tasks run", WAIT_SECONDS_MAX, POLL_SECONDS)
    cost = Cost()
    began = time.monotonic()
    moments = [seconds * (number + 1) / (kills + 1) for number in range(kills)]
    stop = threading.Event()
    watcher = threading.Thread(target=_sample, args=(lab, cost, stop))
    watcher.start()
    try:
        for moment in moments:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            for host in lab.hosts():
                lab.restart_daemon(host)
                time.sleep(KILL_PAUSE_SECONDS)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    finally:
        stop.set()
        watcher.join()
    cost.seconds = time.monotonic() - began
    return cost


def _running(lab: Lab) -> int:
    """Writers on this machine."""
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"of a task that writes" in (entry / "cmdline").read_bytes():
                count += b"python3" in (entry / "cmdline").read_bytes()[:20]
    return count


def _sample(lab: Lab, cost: Cost, stop: threading.Event) -> None:
    """Each process's own numbers: CPU since the first look at it, memory from a while after its start."""
    first: dict[int, tuple[float, float]] = {}  # process -> when it was first seen, and its CPU then
    last: dict[int, float] = {}
    while not stop.wait(1.0):
        for host in lab.hosts():
            with contextlib.suppress(OSError, LabError, KeyError):
                pid = lab.process_ids(host)["fairwayd"]
                used = cpu_seconds([pid])
                seen, _ = first.setdefault(pid, (time.monotonic(), used if not last else 0.0))
                last[pid] = max(last.get(pid, 0.0), used)
                if time.monotonic() - seen > SETTLE_SECONDS:
                    cost.memory_mb.setdefault((host, pid), []).append(_rss_mb(pid))
    cost.cpu_seconds = sum(used - first[pid][1] for pid, used in last.items())


def _rss_mb(pid: int) -> float:
    """Raises OSError where it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    if not kilobytes:
        raise ProcessLookupError(f"process {pid} has ended")
    return kilobytes[0] * 1024 / 1e6


def _read(socket: str, app: str, tasks: int, each: int) -> Found:
    """By `fairway logs`, once every task has written its last line."""
    found = Found(tasks * each)
    last = f"line {each - 1:08d} "

    def ended() -> bool:
        with contextlib.suppress(LabError):
            return fairway(socket, "logs", f"{app}/writer", "--tail", "1").count(last) == tasks
        return False

    wait(ended, "every task's last line is there", WAIT_SECONDS_MAX, POLL_SECONDS)
    began = time.monotonic()
    process = subprocess.Popen(
        [str(program_folder() / "fairway"), "logs", f"{app}/writer"],
        env={**os.environ, "FAIRWAY_SOCKET": socket},
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    expected: dict[bytes, int] = {}
    for line in process.stdout:
        task, _, text = line.partition(b" | ")
        number, wanted = int(text[5:13]), expected.get(task, 0)
        found.read += 1
        if number > wanted:
            found.lost += number - wanted
        elif number < wanted:
            found.repeated += 1
            continue
        expected[task] = number + 1
    found.seconds = time.monotonic() - began
    found.lost += sum(each - number for number in expected.values()) + (tasks - len(expected)) * each
    if process.wait() != 0:
        raise LabError(f"fairway logs ended with {process.returncode}")
    return found


if __name__ == "__main__":
    tasks, rate, seconds, kills = map(int, sys.argv[2:6])
    print(*run(Lab.open(sys.argv[1]), tasks, rate, seconds, kills), sep="\n")
