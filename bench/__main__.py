"""`./run bench [NAME] [--json FILE] [--bar]`: runs a benchmark beside its peers, or lists them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import balance, deploy, dns, endpoints, fetch, idle, logs, overlay, pull, rollout, schedule, start
from bench.raft import measure as raft
from bench.table import Report
from lab.layout import LabError

BENCHMARKS: dict[str, tuple[str, Callable[[list[str]], Report]]] = {
    "deploy": (
        "from `deploy` returning to N tasks running on one host, beside Docker Swarm and bare runc",
        deploy.measure,
    ),
    "raft": ("writes, reads, failover, memory and start of consensus, beside etcd", raft.measure),
    "dns": ("queries a second and latency for local names, beside dnsmasq and unbound", dns.measure),
    "overlay": ("throughput and round trips between hosts: plain, encrypted, bare", overlay.measure),
    "balance": ("a service's VIP beside direct connections, and beside HAProxy in TCP mode", balance.measure),
    "endpoints": (
        "how soon a killed container is gone from every balancer; 1,000 services of 10 tasks on one host",
        endpoints.measure,
    ),
    "fetch": ("an image of 200 MB to three hosts at once, beside `ctr content fetch` on each", fetch.measure),
    "pull": ("an image of 200 MB out of a registry, beside `ctr image pull` and skopeo", pull.measure),
    "rollout": ("a rolling update of ten tasks, two at a time, beside Docker Swarm", rollout.measure),
    "schedule": (
        "placements a second, balance and memory of the scheduler, in simulation, beside published numbers",
        schedule.measure,
    ),
    "logs": ("what is kept of 50 tasks that write 1,000 lines a second while fairwayd is killed twice", logs.measure),
    "start": (
        "containers a second and memory a container through the whole system, beside bare containerd, runc and Docker",
        start.measure,
    ),
    "idle": ("memory and CPU of fairwayd, idle and with 50 tasks, beside dockerd", idle.measure),
}
SIDES = ("fairway", "swarm", "containerd", "runc", "etcd", "dnsmasq", "unbound", "haproxy")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    parser.add_argument("--bar", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--only", choices=SIDES, action="append", help="measure these sides only; may be repeated")
    arguments = parser.parse_args()
    if arguments.name is None:
        for name, (text, _) in sorted(BENCHMARKS.items()):
            print(f"{name:10} {text}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    try:
        report = BENCHMARKS[arguments.name][1](arguments.only or list(SIDES))
    except LabError as error:
        print(f"bench {arguments.name}: {error}", file=sys.stderr)
        return 2
    print(report.text())
    if arguments.json is not None:
        arguments.json.write_text(report.to_json())
    return 1 if arguments.bar and not report.bars_met() else 0


if __name__ == "__main__":
    sys.exit(main())
