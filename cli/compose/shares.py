"""Keys of a service that say how the kernel treats its containers beside others: cores, shares, periods, swap."""

from __future__ import annotations

from cli.compose import values
from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.container_rules import (
    CPU_PERIOD_US_MAX,
    CPU_PERIOD_US_MIN,
    CPU_SHARES_MAX,
    CPU_SHARES_MIN,
    cores_problem,
)

KEYS = frozenset({"cpuset", "cpu_shares", "cpu_period", "cpu_quota", "memswap_limit"})
_PERIOD_US = 100_000  # where only a quota is said, as in Docker
_QUOTA_US_MIN = 1_000
_QUOTA_US_MAX = 1_024 * CPU_PERIOD_US_MAX


def read_shares(reader: Reader, entries: dict[str, Field], spec: objects_pb2.ServiceSpec) -> None:
    """Once the limits of `spec` are read, which cpu_quota is another word for."""
    if "cpuset" in entries:
        text = reader.text(entries["cpuset"]).replace(" ", "")
        if text and (problem := cores_problem(text)):
            reader.refuse(entries["cpuset"], problem)
        spec.container.shares.cpus = text
    if "cpu_shares" in entries:
        shares = reader.integer(entries["cpu_shares"], 0, CPU_SHARES_MAX)
        if shares:
            spec.container.shares.cpu_shares = max(CPU_SHARES_MIN, shares)
    _quota(reader, entries, spec)
    if "memswap_limit" in entries:
        _swap(reader, entries["memswap_limit"], spec)


def _quota(reader: Reader, entries: dict[str, Field], spec: objects_pb2.ServiceSpec) -> None:
    """CPU time within each period, both in microseconds or as durations."""
    period_us = _PERIOD_US
    if "cpu_period" in entries:
        period_us = _microseconds(reader, entries["cpu_period"], CPU_PERIOD_US_MIN, CPU_PERIOD_US_MAX)
        spec.container.shares.cpu_period_us = period_us
    if "cpu_quota" not in entries:
        if "cpu_period" in entries and not spec.resources.cpu_limit_millis:
            reader.refuse(entries["cpu_period"], "has no effect without a limit; write cpus or cpu_quota")
        return
    if spec.resources.cpu_limit_millis:
        reader.refuse(entries["cpu_quota"], "is a second limit of CPU time; keep one of the two")
        return
    quota_us = _microseconds(reader, entries["cpu_quota"], _QUOTA_US_MIN, _QUOTA_US_MAX)
    spec.resources.cpu_limit_millis = max(1, quota_us * 1000 // period_us)


def _microseconds(reader: Reader, field: Field, low: int, high: int) -> int:
    def parse(text: str) -> int:
        found = int(text) if text.strip().isascii() and text.strip().isdigit() else values.duration_ms(text) * 1000
        if not low <= found <= high:
            raise ValueError(f"{text!r} is not between {low} and {high} microseconds")
        return found

    return reader.parsed(field, parse, low)


def _swap(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """Docker's number is memory and swap together; 0 says nothing."""
    text = reader.text(field).strip()
    if text in ("", "0"):
        return
    limit_bytes = spec.resources.memory_limit_bytes
    if not limit_bytes:
        reader.refuse(field, "has no effect without a limit of memory; write deploy.resources.limits.memory")
    elif text == "-1":
        spec.container.shares.swap_bytes = -1
    else:
        both_bytes = reader.size_bytes(field)
        if both_bytes < limit_bytes:
            reader.refuse(field, "is less than the limit of memory, which it contains")
        spec.container.shares.swap_bytes = max(0, both_bytes - limit_bytes)
