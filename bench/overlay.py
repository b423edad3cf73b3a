"""From a task on one host to a task on another: in the clear, encrypted, and the bare path that both go over.

Two lab hosts; the bare path is that between the hosts themselves (veth, bridge, veth). Throughput by Debian's iperf3,
round trips by `overlay_peer.py`. Both ends share the machine's CPUs, as do the two wireguard-go where the kernel has no
WireGuard.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fairway_side import IMAGE, FairwaySide
from bench.programs import wait
from bench.table import Report, Row, quotient
from lab.cluster import Lab
from lab.debian_packages import library_folders, unpacked
from lab.images import base_root
from lab.layout import LabError

RUNS = 3
STREAM_SECONDS = 3
ROUND_TRIP_SECONDS = 2.0
STREAMS_MANY = 4
READY_SECONDS_MAX = 30.0
IPERF_PORT, PEER_PORT = 5201, 5202
ASKING, SERVING = "host-1", "host-2"
_APP = f"""name: overlay
services:
  end:
    image: {IMAGE}
    command: ["sleep", "100000"]
    stop_grace_period: 0s
    deploy:
      replicas: 2
"""


@dataclass
class Measured:
    """What was measured of one way."""

    one_gbit: list[float] = field(default_factory=list)
    many_gbit: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class End:
    """Where a program runs: a host itself, or the network of the task on it."""

    host: str
    address: str
    task_pid: int = 0

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self.task_pid}", "--net", *argv] if self.task_pid else list(argv)


def measure(_sides: Sequence[str]) -> Report:
    """Alternates the bare path with each of the others."""
    found = {name: Measured() for name in ("bare", "plain", "encrypted")}
    with FairwaySide(base_root(), host_count=2) as side:
        lab = side.lab
        side.deploy("overlay", _APP)
        hosts = (End(ASKING, lab.address(ASKING)), End(SERVING, lab.address(SERVING)))
        tasks = _ends(side)
        for asking, serving in (hosts, tasks):
            _serve(lab, serving)
            wait(
                lambda asking=asking, serving=serving: _answers(lab, asking, serving),  # type: ignore[misc]
                "the servers answer",
                READY_SECONDS_MAX,
            )
        for name in ("plain", "encrypted"):
            if name == "encrypted":
                side.fairway("net", "encryption", "set", "wireguard", "--timeout", "60s")
            for run in range(RUNS):
                for way, (asking, serving) in (("bare", hosts), (name, tasks)):
                    _measure(lab, asking, serving, found[way])
                    print(f"{name} {run + 1}/{RUNS}: {way} {found[way].one_gbit[-1]:.2f} Gbit/s", file=sys.stderr)
        in_user_space = lab.run_in(ASKING, ["sh", "-c", "pidof wireguard-go || true"]).stdout.strip()
    return _report(found, "wireguard-go in user space" if in_user_space else "the kernel's WireGuard")


def _ends(side: FairwaySide) -> tuple[End, End]:
    """The tasks on the two hosts."""
    names = {
        view["node"]["meta"]["id"]: view["node"]["meta"]["name"]
        for view in json.loads(side.fairway("node", "ls", "-o", "json"))
    }
    ends = {}
    for task in json.loads(side.fairway("ps", "-o", "json")):
        host = names[task["node_id"]]
        ends[host] = End(host, task["address"], task["status"]["pid"])
    if ends.keys() != {ASKING, SERVING}:
        raise LabError("the two tasks were not spread over the two hosts")
    return ends[ASKING], ends[SERVING]


def _iperf() -> list[str]:
    tree = unpacked("iperf3", ["iperf3", "libiperf0", "libsctp1"], with_libraries=False)
    return ["env", f"LD_LIBRARY_PATH={':'.join(map(str, library_folders(tree)))}", str(tree / "usr/bin/iperf3")]


def _peer(*words: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("overlay_peer.py")), *words]


def _serve(lab: Lab, end: End) -> None:
    """Both servers; they end with the lab."""
    for argv in (
        [*_iperf(), "--server", "--bind", end.address, "--port", str(IPERF_PORT)],
        _peer("serve", end.address, str(PEER_PORT)),
    ):
        lab.popen(end.host, end.command(argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _answers(lab: Lab, asking: End, serving: End) -> bool:
    try:
        _throughput(lab, asking, serving, streams=1, seconds=1)
        _round_trips(lab, asking, serving, 0.1)
    except LabError:
        return False
    return True


def _measure(lab: Lab, asking: End, serving: End, found: Measured) -> None:
    found.one_gbit.append(_throughput(lab, asking, serving, 1, STREAM_SECONDS))
    found.many_gbit.append(_throughput(lab, asking, serving, STREAMS_MANY, STREAM_SECONDS))
    taken = _round_trips(lab, asking, serving, ROUND_TRIP_SECONDS)
    found.p50_us.append(taken["p50_us"])
    found.p99_us.append(taken["p99_us"])


def _throughput(lab: Lab, asking: End, serving: End, streams: int, seconds: int) -> float:
    options = ["--port", str(IPERF_PORT), "--time", str(seconds), "--parallel", str(streams), "--json"]
    done = lab.run_in(asking.host, asking.command([*_iperf(), "--client", serving.address, *options]))
    found = json.loads(done.stdout)
    if "error" in found or "sum_received" not in found["end"]:  # with exit status 0 all the same
        raise LabError(f"iperf3 to {serving.address}: {found.get('error', 'nothing was received')}")
    bits: float = found["end"]["sum_received"]["bits_per_second"]
    return bits / 1e9


def _round_trips(lab: Lab, asking: End, serving: End, seconds: float) -> Any:
    argv = _peer("ask", serving.address, str(PEER_PORT), str(seconds))
    return json.loads(lab.run_in(asking.host, asking.command(argv)).stdout)


def _report(found: dict[str, Measured], by: str) -> Report:
    report = Report("overlay", "From a task on one host to a task on another, beside the bare path between the hosts")
    bare = found["bare"]
    for name in ("plain", "encrypted"):
        way = found[name]
        for what, unit, mine, other in (
            ("TCP, one stream", "Gbit/s", way.one_gbit, bare.one_gbit),
            (f"TCP, {STREAMS_MANY} streams", "Gbit/s", way.many_gbit, bare.many_gbit),
            ("round trip of 64 bytes, median", "us", way.p50_us, bare.p50_us),
            ("round trip of 64 bytes, p99", "us", way.p99_us, bare.p99_us),
        ):
            ratio = quotient(mine, other)
            report.rows.append(Row(f"{what}, {name}", unit, mine, "bare veth", other, f"{name} / bare", ratio))
    report.notes.append(f"Encrypted by {by}; both ends, and it, share this machine's CPUs. Throughput by iperf3.")
    return report
