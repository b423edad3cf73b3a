"""Files that are only in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.memory_files import MemoryFiles
from tests.storage.mounts import unmount


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "secrets"
    unmount(tmp_path / "secrets")


def test_files_are_as_asked_and_on_no_disk(folder: Path) -> None:
    memory = MemoryFiles(folder)
    path = memory.write("task", "file-0", b"first", 1, 2, 0o440)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (1, 2, 0o440)
    assert folder.is_mount()
    assert path.stat().st_dev != folder.parent.stat().st_dev
    assert memory.write("task", "file-0", b"second", 0, 0, 0o400) == path
    assert path.read_bytes() == b"second"


def test_a_later_daemon_finds_what_an_earlier_one_wrote(folder: Path) -> None:
    path = MemoryFiles(folder).write("task", "file-0", b"content", 0, 0, 0o400)
    later = MemoryFiles(folder)
    later.write("other", "file-0", b"content", 0, 0, 0o400)
    assert path.read_bytes() == b"content"
    assert later.owners() == {"task", "other"}
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    assert mounted.count(str(folder)) == 1


def test_what_is_removed_is_gone_and_may_be_removed_again(folder: Path) -> None:
    memory = MemoryFiles(folder)
    assert memory.owners() == set()
    memory.remove("task")
    path = memory.write("task", "file-0", b"content", 0, 0, 0o400)
    with path.open("rb") as held:
        memory.remove("task")
        memory.remove("task")
        assert held.read() == b"content"
    assert memory.owners() == set()
