"""Docker's rules for HEALTHCHECK: by tables, and the loop against a probe that is scripted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from proto.objects_pb2 import Health, Healthcheck
from runtime import errors, health_plan
from runtime.health_plan import Check, HealthState, after_probe, effective, wait_ms
from runtime.healthcheck import HealthReport, run_healthcheck

STARTING, HEALTHY, UNHEALTHY = Health.HEALTH_STARTING, Health.HEALTH_HEALTHY, Health.HEALTH_UNHEALTHY
CHECK = Check(("true",), interval_ms=1_000, timeout_ms=500, retries=3, start_period_ms=10_000, start_interval_ms=100)


@pytest.mark.parametrize(
    ("own", "image", "command"),
    [
        (None, None, None),
        (["NONE"], ["CMD", "x"], None),
        (None, ["NONE"], None),
        (None, ["CMD", "x", "y"], ("x", "y")),
        (["CMD", "own"], ["CMD", "x"], ("own",)),
        (["CMD-SHELL", "a | b"], None, ("/bin/sh", "-c", "a | b")),
        ([], ["CMD", "x"], ("x",)),
    ],
)
def test_the_services_own_check_goes_before_the_images(
    own: list[str] | None, image: list[str] | None, command: tuple[str, ...] | None
) -> None:
    check = effective(
        None if own is None else Healthcheck(test=own), None if image is None else Healthcheck(test=image)
    )
    assert (check.command if check else None) == command


def test_what_is_not_set_comes_from_the_image_or_is_dockers_default() -> None:
    check = effective(Healthcheck(retries=7), Healthcheck(test=["CMD", "x"], interval_ms=5, retries=2))
    assert check == Check(("x",), 5, health_plan.TIMEOUT_MS_DEFAULT, 7, 0, health_plan.START_INTERVAL_MS_DEFAULT)


@pytest.mark.parametrize("test", [["CMD"], ["CMD-SHELL"], ["CMD-SHELL", "a", "b"], ["curl", "x"]])
def test_a_check_of_no_known_form_is_refused(test: list[str]) -> None:
    with pytest.raises(errors.InvalidRequest, match="CMD-SHELL"):
        effective(Healthcheck(test=test), None)


@pytest.mark.parametrize(
    ("state", "passed", "now_ms", "after"),
    [
        (HealthState(0), True, 1, HealthState(0, HEALTHY)),
        (HealthState(0), False, 9_999, HealthState(0)),  # within the start period
        (HealthState(0), False, 10_000, HealthState(0, STARTING, 1)),
        (HealthState(0, STARTING, 2), False, 11_000, HealthState(0, UNHEALTHY, 3)),
        (HealthState(0, HEALTHY), False, 500, HealthState(0, HEALTHY, 1)),  # a success ended the start period
        (HealthState(0, HEALTHY, 2), False, 500, HealthState(0, UNHEALTHY, 3)),
        (HealthState(0, HEALTHY, 2), True, 500, HealthState(0, HEALTHY)),
        (HealthState(0, UNHEALTHY, 3), False, 20_000, HealthState(0, UNHEALTHY, 4)),
        (HealthState(0, UNHEALTHY, 9), True, 20_000, HealthState(0, HEALTHY)),
    ],
)
def test_what_a_probe_leads_to(state: HealthState, passed: bool, now_ms: int, after: HealthState) -> None:
    assert after_probe(CHECK, state, passed, now_ms) == after


@pytest.mark.parametrize(
    ("state", "now_ms", "wait"),
    [
        (HealthState(0), 9_999, 100),
        (HealthState(0), 10_000, 1_000),
        (HealthState(0, HEALTHY), 50, 1_000),
        (HealthState(0, UNHEALTHY), 50, 1_000),
    ],
)
def test_when_the_next_probe_is_due(state: HealthState, now_ms: int, wait: int) -> None:
    assert wait_ms(CHECK, state, now_ms) == wait


Result = tuple[int, bytes] | Exception


def reports(check: Check, *results: Result) -> tuple[list[HealthReport], list[float]]:
    """What the loop reports, and the seconds at which it probed, when the probes end so and the container then goes."""
    seen: list[HealthReport] = []
    moments: list[float] = []
    left = list(results)
    began: list[float] = []

    async def probe(command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
        assert (tuple(command), timeout_ms) == (check.command, check.timeout_ms)
        moments.append(round(trio.current_time() - began[0], 3))
        result = left.pop(0) if left else errors.NotFound("gone")
        if isinstance(result, Exception):
            raise result
        return result

    async def body() -> None:
        began.append(trio.current_time())
        await run_healthcheck(check, probe, seen.append)

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
    return seen, moments


PLAIN = Check(("x",), interval_ms=1_000, timeout_ms=500, retries=2, start_period_ms=0, start_interval_ms=1)


def test_the_loop_reports_changes_only() -> None:
    seen, moments = reports(PLAIN, (0, b""), (0, b""), (1, b"a"), (1, b" b \n"), (3, b"c"), (0, b""))
    assert seen == [
        HealthReport(STARTING, ""),
        HealthReport(HEALTHY, ""),
        HealthReport(UNHEALTHY, "exit code 1: b"),
        HealthReport(HEALTHY, ""),
    ]
    assert moments == [1, 2, 3, 4, 5, 6, 7]


def test_a_containerd_that_is_away_says_nothing_of_the_container() -> None:
    away = errors.Unavailable("away")
    assert reports(PLAIN, away, away, away, (0, b""))[0] == [HealthReport(STARTING, ""), HealthReport(HEALTHY, "")]


def test_a_probe_that_does_not_end_or_start_has_failed() -> None:
    seen, _ = reports(PLAIN, errors.TimedOut("late"), errors.TimedOut("late"))
    assert seen[-1] == HealthReport(UNHEALTHY, "no answer within 500 ms")
    seen, _ = reports(PLAIN, errors.CannotStart("no such file"), errors.CannotStart("no such file"))
    assert seen[-1] == HealthReport(UNHEALTHY, "no such file")


def test_the_output_that_is_reported_is_bounded() -> None:
    seen, _ = reports(PLAIN, (1, b"\xff" * 5_000), (1, b"\xff" * 5_000))
    assert len(seen[-1].message) < 600


def test_probes_are_frequent_until_the_first_success() -> None:
    _, moments = reports(CHECK, (1, b""), (1, b""), (0, b""), (0, b""))
    assert moments == [0.1, 0.2, 0.3, 1.3, 2.3]
