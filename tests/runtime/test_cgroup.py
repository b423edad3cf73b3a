"""Removing the control groups of a container, which runc removes too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import cgroup
from runtime.cgroup import CgroupHost


def test_groups_that_vanish_meanwhile_are_removed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tmp_path / "tasks/a"
    for group in (task / "init/deeper", task / "other"):
        group.mkdir(parents=True)
    walk = os.walk

    def walk_beside_runc(folder: Path, topdown: bool) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(folder, topdown=topdown):
            if found[0].endswith("deeper"):
                Path(found[0]).rmdir()
            yield found

    monkeypatch.setattr(cgroup, "CGROUP_FOLDER", tmp_path)
    monkeypatch.setattr(os, "walk", walk_beside_runc)
    host = CgroupHost("v2", (), swap_accounting=False)
    assert cgroup.remove(host, "/tasks", "a")
    assert not task.exists()
    assert cgroup.remove(host, "/tasks", "a")
