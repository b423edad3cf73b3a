"""Real hosts, made once for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.net.world import World, running_world


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("hosts")) as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> World:
    """As it was made, whatever a test before has applied."""
    shared_world.apply()
    return shared_world
