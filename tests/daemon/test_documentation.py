"""The documentation of settings names every one of them, with its default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from daemon.config import Config

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
KEYS = [
    f"{table.name}.{key.name}"
    for table in dataclasses.fields(Config())
    for key in dataclasses.fields(getattr(Config(), table.name))
]


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_documented(key: str) -> None:
    assert f"`{key}`" in PAGE
