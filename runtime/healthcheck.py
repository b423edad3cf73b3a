"""Probes one container for as long as it runs and reports each change of its health."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from proto import objects_pb2
from proto.objects_pb2 import Health
from runtime import health_plan
from runtime.errors import NotFound, RuntimeFailure, TimedOut, Unavailable
from runtime.health_plan import Check, HealthState, effective

log = logging.getLogger(__name__)

OUTPUT_LENGTH_MAX = 512  # characters of a failed probe's output that are reported

# (command, timeout_ms) -> (exit code, output); raises RuntimeFailure. See Runtime.run_check.
Probe = Callable[[Sequence[str], int], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True)
class HealthReport:
    health: objects_pb2.Health.ValueType
    message: str  # of the last probe that failed; empty when healthy


async def run_healthcheck(
    check: Check,
    probe: Probe,
    report: Callable[[HealthReport], None],
    health: objects_pb2.Health.ValueType = Health.HEALTH_STARTING,
) -> None:
    """Reports `health` (what is known of it, after a restart of the daemon) at once and then each change; returns
    when the container is gone.

    `probe` raises NotFound for that. A containerd that does not answer says nothing about the container.
    """
    state = HealthState(started_ms=_now_ms(), health=health)
    report(HealthReport(state.health, ""))
    while True:
        await trio.sleep(health_plan.wait_ms(check, state, _now_ms()) / 1000)
        try:
            code, output = await probe(check.command, check.timeout_ms)
            passed, message = code == 0, f"exit code {code}: {_readable(output)}"
        except NotFound:
            return
        except Unavailable as error:
            log.debug("a probe is left out: %s", error)
            continue
        except TimedOut:
            passed, message = False, f"no answer within {check.timeout_ms} ms"
        except RuntimeFailure as error:
            passed, message = False, str(error)
        after = health_plan.after_probe(check, state, passed, _now_ms())
        if after.health != state.health:
            report(HealthReport(after.health, "" if after.health == Health.HEALTH_HEALTHY else message))
        state = after


def _now_ms() -> int:
    return int(trio.current_time() * 1000)


def _readable(output: bytes) -> str:
    return output.decode(errors="replace").strip()[:OUTPUT_LENGTH_MAX]


__all__ = ["Check", "HealthReport", "Probe", "effective", "run_healthcheck"]
