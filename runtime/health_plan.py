"""When to probe a container and what the results mean: Docker's rules for HEALTHCHECK. Pure.

Times are milliseconds of any one clock, handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proto import objects_pb2
from proto.objects_pb2 import Health, Healthcheck
from runtime.errors import InvalidRequest

INTERVAL_MS_DEFAULT = 30_000
TIMEOUT_MS_DEFAULT = 30_000
RETRIES_DEFAULT = 3
START_INTERVAL_MS_DEFAULT = 5_000
INTERVAL_MS_MIN = 1
SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Check:
    """A check with all defaults filled in; lengths in milliseconds."""

    command: tuple[str, ...]
    interval_ms: int
    timeout_ms: int
    retries: int
    start_period_ms: int
    start_interval_ms: int


@dataclass(frozen=True)
class HealthState:
    started_ms: int
    health: objects_pb2.Health.ValueType = Health.HEALTH_STARTING
    failures: int = 0  # in a row, those within the start period not counted


def effective(own: Healthcheck | None, image: Healthcheck | None) -> Check | None:
    """The check to make: the service's own, else the image's; None where there is none, or ["NONE"].

    Raises InvalidRequest on a test that begins with none of CMD, CMD-SHELL and NONE. Own settings without
    a test change those of the image's check.
    """
    check = Healthcheck()
    for source in (image, own):
        if source is not None:
            if source.test:
                del check.test[:]
            check.MergeFrom(source)
    if not check.test or check.test[0] == "NONE":
        return None
    return Check(
        _command(list(check.test)),
        max(INTERVAL_MS_MIN, check.interval_ms or INTERVAL_MS_DEFAULT),
        check.timeout_ms or TIMEOUT_MS_DEFAULT,
        check.retries or RETRIES_DEFAULT,
        check.start_period_ms,
        max(INTERVAL_MS_MIN, check.start_interval_ms or START_INTERVAL_MS_DEFAULT),
    )


def wait_ms(check: Check, state: HealthState, now_ms: int) -> int:
    """How long to wait before the next probe, counted from the end of the one before."""
    return check.start_interval_ms if _starting(check, state, now_ms) else check.interval_ms


def after_probe(check: Check, state: HealthState, passed: bool, now_ms: int) -> HealthState:
    """The state that a probe which ended now leads to.

    One success makes it healthy, also within the start period, and ends that. `retries` failures in a row
    make it unhealthy; within the start period they do not count.
    """
    if passed:
        return replace(state, health=Health.HEALTH_HEALTHY, failures=0)
    if _starting(check, state, now_ms):
        return state
    failures = state.failures + 1
    health = Health.HEALTH_UNHEALTHY if failures >= check.retries else state.health
    return replace(state, health=health, failures=failures)


def _starting(check: Check, state: HealthState, now_ms: int) -> bool:
    never_healthy = state.health == Health.HEALTH_STARTING
    return never_healthy and now_ms - state.started_ms < check.start_period_ms


def _command(test: list[str]) -> tuple[str, ...]:
    if test[0] == "CMD" and len(test) > 1:
        return tuple(test[1:])
    if test[0] == "CMD-SHELL" and len(test) == 2:
        return (*SHELL, test[1])
    raise InvalidRequest(f"healthcheck test {test}: write [CMD, program, ...], [CMD-SHELL, line] or [NONE]")
