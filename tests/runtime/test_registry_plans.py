"""What registries' answers mean: challenges, and when a request is repeated."""

from __future__ import annotations

import pytest

from runtime.errors import InvalidRequest
from runtime.registry import retry_plan
from runtime.registry.address import parse_mirror, registry_name
from runtime.registry.challenge import Challenge, find, parse_challenges
from runtime.registry.retry_plan import ASKED_WAIT_S_MAX, TRIES_MAX, WAIT_S_MAX, repeat_after_s


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull",
                    },
                )
            ],
        ),
        (['Basic realm="a \\"quoted\\" realm"'], [Challenge("basic", {"realm": 'a "quoted" realm'})]),
        (
            ['Basic realm=plain, Bearer realm = "x, y" , scope=z'],
            [Challenge("basic", {"realm": "plain"}), Challenge("bearer", {"realm": "x, y", "scope": "z"})],
        ),
        (["Negotiate", "BASIC realm=r"], [Challenge("negotiate"), Challenge("basic", {"realm": "r"})]),
        (["", 'realm="of nothing"'], []),
    ],
)
def test_challenges_are_read_as_the_rfc_writes_them(headers: list[str], wanted: list[Challenge]) -> None:
    assert parse_challenges(headers) == wanted


def test_the_scheme_is_found_whatever_its_place() -> None:
    challenges = parse_challenges(["Digest qop=auth", "Bearer realm=r"])
    assert find(challenges, "bearer") == Challenge("bearer", {"realm": "r"})
    assert find(challenges, "basic") is None


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("status", "retry_after", "attempt", "wanted"),
    [
        (503, "", 1, retry_plan.WAIT_S_MIN),
        (503, "", 3, 4 * retry_plan.WAIT_S_MIN),
        (429, "7", 1, 7.0),
        (429, "Tue, 14 Nov 2023 22:13:50 GMT", 1, 30.0),
        (429, "Tue, 14 Nov 2023 22:00:00 GMT", 1, 0.0),
        (429, str(int(ASKED_WAIT_S_MAX) + 1), 1, None),
        (429, "nonsense", 1, retry_plan.WAIT_S_MIN),
        (502, "", TRIES_MAX, None),
        (404, "1", 1, None),
        (403, "", 1, None),
        (501, "", 1, None),
    ],
)
def test_what_may_pass_is_repeated_and_what_is_asked_for_is_waited_for(
    status: int, retry_after: str, attempt: int, wanted: float | None
) -> None:
    assert repeat_after_s(status, retry_after, attempt, 1.0, NOW) == wanted


def test_waits_grow_to_a_bound_and_are_spread() -> None:
    assert retry_plan.wait_s(100, 1.0) == WAIT_S_MAX
    assert retry_plan.wait_s(2, 0.0) == retry_plan.wait_s(2, 1.0) / 2


def test_names_of_registries_and_mirrors() -> None:
    for text, name in {
        "docker.io": "docker.io",
        "https://index.docker.io/v1/": "docker.io",
        "registry.example:5000": "registry.example:5000",
        "http://10.0.0.1:5000/": "10.0.0.1:5000",
        "[fd00::1]:5000": "[fd00::1]:5000",
    }.items():
        assert registry_name(text) == name
    assert parse_mirror("https://mirror.example:5000/hub/cache/") == ("mirror.example:5000", "hub/cache")
    assert parse_mirror("mirror.example") == ("mirror.example", "")
    for wrong in ("", "a b", "registry.example/path", "-x"):
        with pytest.raises(InvalidRequest):
            registry_name(wrong)
    for wrong in ("", "a b", "mirror.example/UPPER", "mirror.example/../x y"):
        with pytest.raises(InvalidRequest):
            parse_mirror(wrong)
