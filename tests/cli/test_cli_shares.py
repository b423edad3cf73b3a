"""Shares, cores, periods and swap as a file says them."""

from __future__ import annotations

from pathlib import Path

from cli.compose import project
from proto import objects_pb2


def read(keys: str) -> objects_pb2.ServiceSpec:
    text = f"services: {{web: {{image: web, {keys}}}}}"
    return project.parse(text, "compose.yaml", Path("/nowhere/app"), {}).spec.services["web"]


def test_what_is_said_in_dockers_numbers_becomes_limits_and_shares() -> None:
    quota = read("cpu_quota: 25000, cpu_period: 50ms")
    assert quota.resources.cpu_limit_millis == 500
    assert quota.container.shares == objects_pb2.KernelShares(cpu_period_us=50_000)
    assert read("cpu_quota: 150ms").resources.cpu_limit_millis == 1500
    assert read("cpus: 2, cpu_period: 20000").container.shares.cpu_period_us == 20_000
    assert read('cpuset: "0, 2-3", cpu_shares: 1').container.shares == objects_pb2.KernelShares(
        cpus="0,2-3", cpu_shares=2
    )
    for said, swap_bytes in (("96m", 32 << 20), ("64m", 0), ("-1", -1), ("0", 0)):
        assert read(f"mem_limit: 64m, memswap_limit: {said}").container.shares.swap_bytes == swap_bytes
    assert not read("cpus: 1").container.HasField("shares")
