"""Looks again and again at what really runs on the hosts, for volumes with two holders at a time.

It asks nobody: containers are found as containerd's bundles, and one lives while its process is in its control group.
So it sees hosts whose fairwayd or network is gone, too.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Lab
from lab.layout import LabError
from tests.disorder.apps import mark_of

PERIOD_SECONDS = 0.25
_BUNDLES = "root/run/containerd/io.containerd.runtime.v2.task/fairway"
_VOLUMES = "/var/lib/fairway/volumes/"


@dataclass(frozen=True)
class Holder:
    """A container that has volumes mounted."""

    task: str
    service: str  # APP/NAME
    version: str
    alone: bool
    volumes: tuple[str, ...]  # ids


def conflicts(living: Iterable[tuple[str, Holder]]) -> list[str]:
    """Volumes with two holders of which one may not share, or with holders on two hosts; of (host, holder). Pure."""
    holders: dict[str, list[tuple[str, Holder]]] = defaultdict(list)
    for host, holder in living:
        for volume in holder.volumes:
            holders[volume].append((host, holder))
    found = []
    for volume, those in holders.items():
        hosts = {host for host, _ in those}
        if len(hosts) > 1 or (len(those) > 1 and any(holder.alone for _, holder in those)):
            words = " and ".join(f"task {one.task} ({one.version}) on {host}" for host, one in those)
            found.append(f"volume {volume} of {those[0][1].service} is held by {words}")
    return sorted(found)


class Watch:
    """A thread that looks until `stop`."""

    def __init__(self, lab: Lab) -> None:
        self.found: dict[str, None] = {}  # conflicts, in the order in which they were seen first
        self.looks = 0
        self.most = 0  # holders seen at a time
        self._lab = lab
        self._known: dict[tuple[str, str], Holder] = {}  # (host, task)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when it has looked for the last time."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_SECONDS):
            living = [(host, holder) for host in self._lab.hosts() for holder in self._living(host)]
            self.found.update(dict.fromkeys(conflicts(living)))
            self.most = max(self.most, len(living))
            self.looks += 1

    def _living(self, host: str) -> list[Holder]:
        try:
            ids = self._lab.process_ids(host)
        except LabError:
            return []
        if not ids:
            return []
        process = Path("/proc") / str(next(iter(ids.values())))
        found = []
        try:
            tasks = [bundle.name for bundle in (process / _BUNDLES).iterdir()]
        except OSError:  # it has been switched off just now
            return []
        for task in tasks:
            holder = self._holder(host, process, task)
            if holder is not None and holder.volumes and _lives(process, task):
                found.append(holder)
        return found

    def _holder(self, host: str, process: Path, task: str) -> Holder | None:
        known = self._known.get((host, task))
        if known is None:
            try:
                known = read_holder(task, (process / _BUNDLES / task / "config.json").read_text())
            except (OSError, ValueError):  # it is being made, or goes
                return None
            self._known[host, task] = known
        return known


def read_holder(task: str, config: str) -> Holder:
    """From a container's OCI configuration. ValueError where it is not whole."""
    found = json.loads(config)
    environment = dict(each.partition("=")[::2] for each in found["process"]["env"])
    sources = (mount.get("source", "") for mount in found["mounts"])
    volumes = tuple(source[len(_VOLUMES) :].partition("/")[0] for source in sources if source.startswith(_VOLUMES))
    return Holder(task, *mark_of(environment), volumes)


def _lives(process: Path, task: str) -> bool:
    """`process`: one on the task's host."""
    try:
        number = (process / _BUNDLES / task / "init.pid").read_text()
        its = process / "root/proc" / number
        state = (its / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and task in (its / "cgroup").read_text()
    except OSError:
        return False
