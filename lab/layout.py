"""Where a lab keeps things on the machine, and the addresses that its underlay uses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Sockets and records, in memory as /run is on a host that was started by systemd; on a machine whose /run is on a
# disk (a container, say) beside it. Short, for a Unix socket's path has 107 bytes.
RUN_ROOT = (Path("/run") if Path("/run").stat().st_dev != Path("/").stat().st_dev else Path("/dev/shm")) / "fairway-lab"  # noqa: S108
STATE_ROOT = Path("/var/lib/fairway-lab")
NAME_LENGTH_MAX = 20
HOST_COUNT_MAX = 100
CLIENT_COUNT_MAX = 50
DEFAULT_NAME = "lab"

# All of these exist in the lab's own network namespaces only, so labs may use the same ones.
UNDERLAY_CIDR = "10.99.0.0/24"
UNDERLAY_PREFIX_BITS, UNDERLAY_IPV6_PREFIX_BITS = 24, 64
SWITCH_ADDRESS = "10.99.0.1"  # the hosts' default gateway: it forwards nothing out and says so
CLUSTER_POOLS = ("10.112.0.0/13", "10.120.0.0/16")  # fairwayd's defaults: hosts' blocks, VIPs
# The host pool covers the VIP pool; the longer route wins, and both lead to hosts of the cluster anyway.

_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{NAME_LENGTH_MAX - 1}}}")


class LabError(Exception):
    """What a person asked of the lab cannot be done: the message says what is wrong and what to do."""


def host_address(number: int, *, ipv6: bool = False) -> str:
    """Underlay address of the host with this number (1 to HOST_COUNT_MAX): the one that the others reach it by."""
    return both_addresses(f"10.99.0.{10 + number}")[ipv6]


def both_addresses(address: str) -> tuple[str, str]:
    """The IPv4 and the IPv6 address of whoever has one of them on the underlay: everyone has both."""
    number = re.split("[.:]", address)[-1]
    return f"10.99.0.{number}", f"fd10:99::{number}"


def client_address(number: int) -> str:
    """Underlay address of the client with this number (1 to CLIENT_COUNT_MAX)."""
    return f"10.99.0.{200 + number}"


def checked_name(name: str, what: str) -> str:
    """`name`, or LabError where it could not be part of a path, an interface and a cgroup."""
    if _NAME.fullmatch(name) is None:
        raise LabError(
            f"{what} {name!r} is not possible: use 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and '-', not '-' first"
        )
    return name


@dataclass(frozen=True)
class LabPaths:
    """The folders of one lab."""

    run: Path  # lab.json, and a folder a host that holds fairwayd.sock
    state: Path  # a folder a host: what its disk holds

    def host_run(self, host: str) -> Path:
        return self.run / host

    def host_state(self, host: str) -> Path:
        return self.state / host

    def socket(self, host: str) -> Path:
        return self.run / host / "fairwayd.sock"

    def log(self, host: str, program: str) -> Path:
        return self.state / host / "log" / f"{program}.log"

    @property
    def record(self) -> Path:
        return self.run / "lab.json"


def lab_paths(name: str, state_folder: Path | None) -> LabPaths:
    """`state_folder` is the lab's own; without it one below $TMPDIR or /var/lib/fairway-lab."""
    if state_folder is None:
        temporary = os.environ.get("TMPDIR")
        root = Path(temporary) / "fairway-lab" if temporary else STATE_ROOT
        state_folder = root / name
    return LabPaths(run=RUN_ROOT / name, state=state_folder.absolute())
