"""What there is on every host of a lab: kernel, containerd, processes, folders, stored rows, fairwayd itself."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lab import cgroups
from lab.cluster import Lab
from proto import objects_pb2 as objects
from tests.churn import kernel

MEMORY, MEMORY_OWN = "fairwayd resident memory", "fairwayd anonymous memory"
TASK_RECORDS, LOG_FOLDERS, LOG_ENTRIES = "stored rows: tasks", "folders of logs", "raft log entries"
LOG_BYTES, DATABASE_BYTES = "fairwayd log bytes", "raft database bytes"
CONTAINERD_MEMORY = "containerd resident memory"

_CONTAINERD = {
    "containers": "ctr -n fairway containers ls -q",
    "containerd tasks": "ctr -n fairway tasks ls -q",
    "snapshots": "ctr -n fairway snapshots ls",
    "leases": "ctr -n fairway leases ls -q",
    "blobs": "ctr -n fairway content ls -q",
}
_MARK = "@@@"
# Folder on the host -> what is counted: everything below it, or only what is directly in it.
_TREES = {"/run/fairway": "files in /run/fairway", "/var/lib/fairway": "files in /var/lib/fairway"}
_FOLDERS = {
    "/var/log/fairway/tasks": LOG_FOLDERS,
    "/run/containerd/io.containerd.runtime.v2.task/fairway": "bundles of containerd",
    "/run/containerd/s": "sockets of shims",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots": "folders of snapshots",
    "/run/fairway-runc/fairway": "states of runc",
}
_PASSING = re.compile(r"cluster\.sqlite-(wal|shm)|\.new$")


@dataclass(frozen=True)
class Inventory:
    """Counts by name of each host, taken at one moment."""

    leader: str
    tasks: int  # that are wanted
    daemons: dict[str, int]  # host -> process id of its fairwayd
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)

    def total(self) -> dict[str, int]:
        """Summed over the hosts: how tasks are spread does not matter then."""
        found: Counter[str] = Counter()
        for counts in self.hosts.values():
            found.update(counts)
        return dict(found)


def take(lab: Lab, tasks: list[objects.Task], nodes: list[objects.Node], leader: str) -> Inventory:
    """`tasks`: all that the cluster knows, ended ones too."""
    present = {task.address for task in tasks if task.address}
    present |= {node.network.tunnel_address for node in nodes}
    wanted = sum(task.desired == objects.DESIRED_STATE_RUNNING for task in tasks)
    hosts = lab.hosts()
    with ThreadPoolExecutor(len(hosts)) as pool:
        counts = pool.map(lambda host: _of_host(lab, host, present), hosts)
        daemons = {host: lab.process_ids(host).get("fairwayd", 0) for host in hosts}
        return Inventory(leader, wanted, daemons, dict(zip(hosts, counts, strict=True)))


def _of_host(lab: Lab, host: str, addresses: set[str]) -> dict[str, int]:
    ids = lab.process_ids(host)
    daemon = Path("/proc") / str(ids["fairwayd"])
    commands = kernel.COMMANDS | _CONTAINERD
    script = "\n".join(f"echo '{_MARK}{name}'; {command}" for name, command in commands.items())
    printed = lab.run_in(host, ["sh", "-c", script], check=False).stdout
    outputs = {part.partition("\n")[0]: part.partition("\n")[2] for part in printed.split(_MARK)[1:]}
    found = kernel.counted(outputs)
    found |= {name: len(outputs.get(name, "").splitlines()) for name in _CONTAINERD}
    found |= kernel.connections(daemon / "ns/net", addresses)
    found |= kernel.control_groups(cgroups.cgroup_parent(lab.name, host))
    found |= _mounts(daemon)
    found |= _files(daemon / "root")
    found |= _stored(lab.paths.host_state(host) / "fairway/raft/cluster.sqlite")
    found |= _process(daemon, "fairwayd")
    found[CONTAINERD_MEMORY] = _status(Path("/proc") / str(ids["containerd"]))["VmRSS"]
    found[LOG_BYTES] = lab.paths.log(host, "fairwayd").stat().st_size
    return found


def _mounts(process: Path) -> dict[str, int]:
    kinds = Counter(line.rpartition(" - ")[2].split()[0] for line in (process / "mountinfo").read_text().splitlines())
    return {"mounts": sum(kinds.values()), "namespaces that are kept": kinds["nsfs"]}


def _files(root: Path) -> dict[str, int]:
    found: Counter[str] = Counter()
    for folder, name in _TREES.items():
        for _, folders, files in os.walk(f"{root}{folder}"):
            found[name] += len(folders) + sum(_PASSING.search(each) is None for each in files)
    for folder, name in _FOLDERS.items():
        try:
            found[name] = sum(1 for _ in Path(f"{root}{folder}").iterdir())
        except FileNotFoundError:
            found[name] = 0
    return dict(found)


def _stored(path: Path) -> dict[str, int]:
    if not path.exists():  # a worker
        return {}
    found = {DATABASE_BYTES: sum(each.stat().st_size for each in path.parent.glob("cluster.sqlite*"))}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            ((count,),) = database.execute(f'select count(*) from "{name}"').fetchall()
            if name == "raft_log":
                found[LOG_ENTRIES] = count
            elif name != "requests" and not name.startswith("raft_"):
                found[f"stored rows: {name}"] = count
    return found


def _process(process: Path, name: str) -> dict[str, int]:
    status = _status(process)
    found = Counter({MEMORY: status["VmRSS"], MEMORY_OWN: status["RssAnon"], f"{name} threads": status["Threads"]})
    for descriptor in (process / "fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        kind = target.partition(":")[0] if not target.startswith("/") else "file"
        found[f"{name} descriptors: {kind}"] += 1
    return dict(found)


def _status(process: Path) -> dict[str, int]:
    """Of /proc/PID/status; memory in KiB."""
    lines = (line.partition(":") for line in (process / "status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if name in ("VmRSS", "RssAnon", "Threads")}
