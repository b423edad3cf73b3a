"""How the kernel treats a container beside others, as `linux.resources` has it: cores, CPU time, memory. Pure.

Format: https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config-linux.md#control-groups
"""

from __future__ import annotations

from proto import objects_pb2
from proto.container_rules import cores_of, cores_problem
from runtime.cgroup import CgroupHost
from runtime.errors import InvalidRequest

CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
SHARES_PER_CORE = 1024
SHARES_MIN = 2
MEMORY_BYTES_MIN = 6 * 1024 * 1024  # runc itself does not start in less


def cpu(wanted: objects_pb2.Resources, shares: objects_pb2.KernelShares, host: CgroupHost) -> dict[str, int | str]:
    """`cpu`; raises InvalidRequest where the host lacks the cores."""
    found: dict[str, int | str] = {}
    if wanted.cpu_limit_millis > 0:
        period_us = shares.cpu_period_us or CPU_PERIOD_US
        found |= {"period": period_us, "quota": max(CPU_QUOTA_US_MIN, wanted.cpu_limit_millis * period_us // 1000)}
    if shares.cpu_shares:
        found["shares"] = max(SHARES_MIN, shares.cpu_shares)
    elif wanted.cpu_reserved_millis > 0:
        found["shares"] = max(SHARES_MIN, wanted.cpu_reserved_millis * SHARES_PER_CORE // 1000)
    if shares.cpus:
        if problem := cores_problem(shares.cpus):
            raise InvalidRequest(f"cpuset: {problem}")
        if "cpuset" not in host.controllers:
            raise InvalidRequest(f"cpuset {shares.cpus}: this host has no control groups for cores")
        if lacking := sorted(cores_of(shares.cpus) - cores_of(host.cores)) if host.cores else []:
            raise InvalidRequest(f"cpuset {shares.cpus}: this host has no core {lacking[0]}; it has {host.cores}")
        found["cpus"] = shares.cpus
    return found


def memory(wanted: objects_pb2.Resources, shares: objects_pb2.KernelShares, host: CgroupHost) -> dict[str, int]:
    """`memory`; raises InvalidRequest on limits that contradict each other or are too small."""
    limit, reserved = wanted.memory_limit_bytes, wanted.memory_reserved_bytes
    if 0 < limit < MEMORY_BYTES_MIN:
        raise InvalidRequest(f"memory limit of {limit} bytes: at least {MEMORY_BYTES_MIN} are needed to start")
    if 0 < limit < reserved:
        raise InvalidRequest(f"memory: {reserved} bytes are reserved, above the limit of {limit}")
    found: dict[str, int] = {}
    if limit > 0:
        found["limit"] = limit
        if host.swap_accounting:
            # Memory and swap together. Where nothing is said a limit is a limit, nothing swaps.
            found["swap"] = -1 if shares.swap_bytes < 0 else limit + shares.swap_bytes
    if reserved > 0:
        found["reservation"] = reserved
    return found
