"""Which tests may run beside each other: `./run test` has a process for whole clusters and one for all others, which
then makes clusters too: for the tests of workloads, and of those that make their own."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# The same examples each time, however slow the machine is; `--hypothesis-profile=default` looks at others.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

WHOLE_CLUSTERS = "tests/system/"
SECOND = (
    "tests/torture/",
    *(
        f"tests/system/test_{name}.py"
        for name in (
            "churn",
            "compose_language",
            "growth",
            "isolation",
            "kinds",
            "logging",
            "minutes",
            "placement",
            "precedence",
            "rollouts",
            "secrets",
            "sessions",
            "workloads",
        )
    ),
)


def group(test: str) -> str:
    """The tests of one group run one after the other in one process; those of tests/system share a cluster there."""
    if test.startswith(SECOND):
        return "clusters, the second part"
    return "clusters" if test.startswith(WHOLE_CLUSTERS) else "parts"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """As `--dist loadgroup`, whose marks have no effect under pytest 9.2, without a word."""
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group
    return scheduler
