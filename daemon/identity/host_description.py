"""What this host is and what its tasks may reserve, as the cluster sees it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
from pathlib import Path

from daemon.config import Config
from net import features as network_features
from net.host_addresses import host_addresses
from proto import objects_pb2 as objects
from raft.features import FEATURE_LEVEL
from runtime.oci_runtimes import installed

MEMORY_RESERVE_BYTES_MAX = 256 << 20  # for the kernel, containerd and fairwayd, which are no tasks
MEMORY_RESERVE_FRACTION = 1 / 20

_ROOT = Path("/")
_OS_RELEASE_FILES = ("etc/os-release", "usr/lib/os-release")  # os-release(5): in this order
# uname's words to GOARCH's, which the OCI image specification uses.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def describe_host(
    config: Config,
    containerd_version: str = "",
    missing_features: tuple[str, ...] = (),
    lacks: tuple[str, ...] = (),
    root: Path = _ROOT,
) -> objects.NodeDescription:
    """The description now. [resources] of the configuration overrides what the host has.

    `lacks`: what only some tasks need, besides what the network lacks. `root` is where /proc, /sys and /etc are looked
    for. What cannot be read is left empty (or 0).
    """
    return objects.NodeDescription(
        hostname=socket.gethostname(),
        operating_system=operating_system(root),
        kernel=platform.release(),
        architecture=architecture(platform.machine()),
        containerd_version=containerd_version,
        fairway_version=fairway_version(),
        cpu_millis=_part(
            config.resources.cpu_millis or len(os.sched_getaffinity(0)) * 1000, config.resources.cpu_percent
        ),
        memory_bytes=_part(
            config.resources.memory_bytes or reservable_memory_bytes(root), config.resources.memory_percent
        ),
        missing_features=missing_features,
        lacks=[*network_features.lacking(config.network.host_network_allowed), *lacks],
        runtimes=installed(config.containerd.runtimes),
        cgroup_version=cgroup_version(root),
        feature_level=FEATURE_LEVEL,
        addresses=host_addresses(config.network.interface_prefix),
    )


def _part(amount: int, percent: int) -> int:
    return amount * percent // 100


def architecture(machine: str) -> str:
    """uname's machine in OCI words; what is not known stays as it is."""
    return _ARCHITECTURES.get(machine, machine)


def operating_system(root: Path = _ROOT) -> str:
    """PRETTY_NAME of os-release(5), else "Linux"."""
    for name in _OS_RELEASE_FILES:
        try:
            lines = (root / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition("=")
            if key.strip() == "PRETTY_NAME":
                return value.strip().strip("\"'")
    return "Linux"


def reservable_memory_bytes(root: Path = _ROOT) -> int:
    """MemTotal of proc_meminfo(5) less a twentieth, at most 256 MiB, for what is no task; 0 if unknown."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "MemTotal:" and words[1].isdecimal():
            total_bytes = int(words[1]) * 1024
            return total_bytes - min(MEMORY_RESERVE_BYTES_MAX, round(total_bytes * MEMORY_RESERVE_FRACTION))
    return 0


def cgroup_version(root: Path = _ROOT) -> str:
    """ "v2" where the one hierarchy at /sys/fs/cgroup has controllers (cgroups(7)), else "v1": also where a
    v2 hierarchy without controllers stands beside v1."""
    try:
        controllers = (root / "sys/fs/cgroup/cgroup.controllers").read_text()
    except OSError:
        return "v1"
    return "v2" if controllers.split() else "v1"


def fairway_version() -> str:
    """Of the installed distribution; "unknown" where it runs from a folder that was never installed."""
    try:
        return importlib.metadata.version("fairway")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
