"""Which tests may run beside each other: `./run test` has a process for the whole clusters and one for all others."""

from __future__ import annotations

from pathlib import Path

import pytest

SYSTEM = Path(__file__).parent / "system"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one group run one after the other; those of tests/system share a cluster."""
    for item in items:
        group = "clusters" if item.path.is_relative_to(SYSTEM) else "parts"
        item.add_marker(pytest.mark.xdist_group(group))
