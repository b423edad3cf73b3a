"""Faults on a lab, one after the other, each healed before the next begins.

Power cuts, killed daemons and containerds, freezes (SIGSTOP), slow processors (SIGSTOP by turns), partitions in both
directions (another bridge) and in one (nftables), slow networks (tc), full, slow and failing disks, clocks that jump.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from lab.cluster import Lab
from lab.layout import LabError
from tests.torture import clocks, disks
from tests.torture.system_calls import injected

HOLD_SECONDS = (1.0, 6.0)
CALM_SECONDS = (1.0, 4.0)
SLOW_STEP_SECONDS = 0.05  # stopped four times as long as running
SLOW_SYNC_US = (20_000, 400_000)  # longer, each, than any disk should take, and than a heartbeat's period
SLOW_NETWORK_KBIT = (100, 1000)
CLOCK_JUMP_MS_MAX = 45 * 60 * 1000  # certificates are valid from an hour before they were signed
TABLE = "torture"


FAULTS = (
    "power cut",
    "daemon killed",
    "containerd killed",
    "frozen",
    "slow",
    "partition",
    "one way partition",
    "slow network",
    "disk full",
    "disk slow",
    "disk failing",
    "clock moved",
)


class Faults:
    """Chooses by `choose`; says what it does by `say`."""

    def __init__(
        self,
        lab: Lab,
        filled: dict[str, Path],
        choose: random.Random,
        say: Callable[[str], None],
        only: Collection[str] = (),
        hold_seconds: tuple[float, float] = HOLD_SECONDS,
    ) -> None:
        """`only`: names of the faults to choose from; all where it is empty. `hold_seconds`: how long one lasts."""
        self._lab, self._disks, self._choose, self._say = lab, filled, choose, say
        self._names = [name for name in FAULTS if not only or name in only]
        self._hold_seconds = hold_seconds
        self.counts: dict[str, int] = {}

    def run(self, until: float) -> None:
        """Until time.monotonic() passes `until`; everything is healed on return."""
        while time.monotonic() < until:
            self.one()
            time.sleep(self._choose.uniform(*CALM_SECONDS))

    def one(self) -> None:
        """One fault, healed on return."""
        name = self._choose.choice(self._names)
        hosts = self._choose.sample(self._lab.hosts(), self._victims())
        self.counts[name] = self.counts.get(name, 0) + 1
        self._say(f"{name}: {', '.join(hosts)}")
        cause: Callable[[list[str], float], None] = getattr(self, f"_{name.replace(' ', '_')}")
        cause(hosts, self._choose.uniform(*self._hold_seconds))

    def _victims(self) -> int:
        """Most often a minority, sometimes so many that nothing goes on for a while."""
        minority = (len(self._lab.hosts()) - 1) // 2
        return self._choose.choice([1, minority, minority, minority + 1])

    def _power_cut(self, hosts: list[str], seconds: float) -> None:
        for host in hosts:
            self._lab.kill(host)
        time.sleep(seconds)
        for host in hosts:
            self._lab.start(host)

    def _daemon_killed(self, hosts: list[str], _seconds: float) -> None:
        for host in hosts:
            with contextlib.suppress(LabError):  # it has not started again since the fault before
                self._lab.restart_daemon(host)

    def _containerd_killed(self, hosts: list[str], _seconds: float) -> None:
        for host in hosts:
            with contextlib.suppress(LabError):
                self._lab.restart_daemon(host, "containerd")

    def _frozen(self, hosts: list[str], seconds: float) -> None:
        self._signal(hosts, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._signal(hosts, signal.SIGCONT)

    def _slow(self, hosts: list[str], seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                self._signal(hosts, signal.SIGSTOP)
                time.sleep(4 * SLOW_STEP_SECONDS)
                self._signal(hosts, signal.SIGCONT)
                time.sleep(SLOW_STEP_SECONDS)
        finally:
            self._signal(hosts, signal.SIGCONT)

    def _partition(self, hosts: list[str], seconds: float) -> None:
        self._lab.partition(hosts)
        try:
            time.sleep(seconds)
        finally:
            self._lab.heal()

    def _disk_full(self, hosts: list[str], seconds: float) -> None:
        try:
            for host in hosts:
                disks.fill(self._disks[host])
            time.sleep(seconds)
        finally:
            for host in hosts:
                disks.free(self._disks[host])

    def _one_way_partition(self, hosts: list[str], seconds: float) -> None:
        """They hear nobody, and are heard."""
        others = ", ".join(self._lab.address(host) for host in self._lab.hosts() if host not in hosts)
        rules = (
            f"table inet {TABLE} {{ chain input {{ type filter hook input priority -300; "
            f"ip saddr {{ {others} }} drop; }}; }}"
        )
        try:
            for host in hosts:
                self._lab.run_in(host, ["nft", rules])
            time.sleep(seconds)
        finally:
            for host in hosts:
                self._lab.run_in(host, ["nft", f"delete table inet {TABLE}"], check=False)

    def _slow_network(self, hosts: list[str], seconds: float) -> None:
        rate = f"{self._choose.randint(*SLOW_NETWORK_KBIT)}kbit"
        try:
            for host in hosts:
                shape = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate]
                self._lab.run_in(host, [*shape, "burst", "8kb", "latency", "400ms"])
            time.sleep(seconds)
        finally:
            for host in hosts:
                self._lab.run_in(host, ["tc", "qdisc", "del", "dev", "eth0", "root"], check=False)

    def _disk_slow(self, hosts: list[str], seconds: float) -> None:
        with injected(self._daemons(hosts), f"delay_enter={self._choose.randint(*SLOW_SYNC_US)}"):
            time.sleep(seconds)

    def _disk_failing(self, hosts: list[str], seconds: float) -> None:
        """A member that met the fault comes back by a start of the daemon only."""
        with injected(self._daemons(hosts), "error=EIO"):
            time.sleep(seconds)
        self._daemon_killed(hosts, seconds)

    def _clock_moved(self, hosts: list[str], seconds: float) -> None:
        try:
            for host in hosts:
                clocks.set_offset(self._lab, host, self._choose.randint(-CLOCK_JUMP_MS_MAX, CLOCK_JUMP_MS_MAX))
            time.sleep(seconds)
        finally:
            for host in hosts:
                clocks.set_offset(self._lab, host, 0)

    def _daemons(self, hosts: list[str]) -> list[int]:
        pids = (self._lab.process_ids(host).get("fairwayd") for host in hosts)
        return [pid for pid in pids if pid is not None]

    def _signal(self, hosts: list[str], number: signal.Signals) -> None:
        for host in hosts:
            pid = self._lab.process_ids(host).get("fairwayd")
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
