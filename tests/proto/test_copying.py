"""Copies: docker cp's rules for names, and trees that go through an archive and come out the same."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from proto.copy_rules import CopyRefused, Goal, Present, goal_of, takes_contents
from proto.tar_in import Unpacking
from proto.tar_out import CHUNK_BYTES, DEPTH_MAX, Packing

NOTHING, FILE, FOLDER = Present.NOTHING, Present.FILE, Present.FOLDER


@pytest.mark.parametrize(
    ("destination", "present", "folder", "contents", "goal"),
    [
        ("/srv/new", NOTHING, False, False, Goal("/srv", "new")),
        ("/new", NOTHING, True, False, Goal("/", "new")),
        ("new", NOTHING, True, True, Goal(".", "new")),
        ("/srv/new/", NOTHING, True, False, Goal("/srv", "new")),
        ("/srv/old", FILE, False, False, Goal("/srv", "old")),
        ("/srv", FOLDER, False, False, Goal("/srv", "source")),
        ("/srv/", FOLDER, True, False, Goal("/srv/", "source")),
        ("/srv/", FOLDER, True, True, Goal("/srv/", "")),
        ("/", FOLDER, False, True, Goal("/", "source")),
    ],
)
def test_where_a_copy_goes(destination: str, present: Present, folder: bool, contents: bool, goal: Goal) -> None:
    assert goal_of(destination, present, "source", folder, contents) == goal


@pytest.mark.parametrize(
    ("destination", "present", "folder"), [("/srv/new/", NOTHING, False), ("/old", FILE, True), ("/old/", FILE, False)]
)
def test_what_cannot_go_anywhere_is_refused(destination: str, present: Present, folder: bool) -> None:
    with pytest.raises(CopyRefused):
        goal_of(destination, present, "source", folder, False)


def test_contents_are_asked_for_by_a_dot() -> None:
    assert [takes_contents(text) for text in (".", "a/.", "a", "a/", "a.", "/.")] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def tree(folder: Path) -> dict[str, tuple[int, int, object]]:
    """Name -> (mode, time, content, link or None)."""
    found: dict[str, tuple[int, int, object]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        mode, when = (0, 0) if path.is_symlink() else (info.st_mode, int(info.st_mtime))
        found[str(path.relative_to(folder))] = (mode, when, content)
    return found


def archive_of(path: Path, name: str, **settings: object) -> bytes:
    packing = Packing(**settings)  # type: ignore[arg-type]
    chunks = list(packing.pack(os.open(path, os.O_PATH | os.O_NOFOLLOW), name))
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    return b"".join(chunks)


def unpacking(folder: Path) -> Unpacking:
    def open_folder(parts: Sequence[str]) -> int:
        return os.open(folder.joinpath(*parts), os.O_RDONLY | os.O_DIRECTORY)

    return Unpacking(open_folder, lambda user, group: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "deep" / "empty").mkdir(parents=True)
    (made / "deep" / "big").write_bytes(os.urandom(3 * CHUNK_BYTES + 77))
    (made / "deep" / "big").chmod(0o640)
    os.link(made / "deep" / "big", made / "same")
    (made / "none").touch()
    (made / "to nowhere").symlink_to("/nowhere/at/all")
    (made / os.fsdecode(b"caf\xe9 " + "é".encode() + b"x" * 120)).write_text("name of no encoding, and a long one")
    os.mkfifo(made / "pipe")
    os.utime(made / "deep" / "empty", (1_000_000_000, 1_000_000_000))
    (made / "deep" / "empty").chmod(0o555)
    return made


def open_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_tree_comes_out_as_it_went_in(source: Path, tmp_path: Path) -> None:
    before = open_count()
    archive = archive_of(source, "source")
    goal = tmp_path / "goal"
    goal.mkdir()
    done = unpacking(goal)
    done.unpack(io.BytesIO(archive), "source", "renamed")
    assert tree(goal / "renamed") == tree(source)
    assert (goal / "renamed" / "same").samefile(goal / "renamed" / "deep" / "big")
    assert done.byte_count > 3 * CHUNK_BYTES
    again = unpacking(goal)
    again.unpack(io.BytesIO(archive), "source", "renamed")  # over what is there
    assert tree(goal / "renamed") == tree(source)
    assert open_count() == before
    with tarfile.open(fileobj=io.BytesIO(archive)) as other:  # others read it too
        assert "source/deep/big" in other.getnames()


def test_contents_go_into_a_folder_that_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    goal = tmp_path / "goal"
    goal.mkdir(mode=0o711)
    (goal / "kept").touch()
    unpacking(goal).unpack(io.BytesIO(archive_of(source, "source")), "source", "")
    assert (goal / "kept").exists() and (goal / "deep" / "big").exists()
    assert goal.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("left", [100, 3_000, CHUNK_BYTES])
def test_what_breaks_off_leaves_no_half_file(source: Path, tmp_path: Path, left: int) -> None:
    archive = archive_of(source / "deep" / "big", "big")
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "big").write_text("before")
    with pytest.raises(CopyRefused, match="no whole tar archive"):
        unpacking(goal).unpack(io.BytesIO(archive[:left]), "big", "big")
    assert [path.name for path in goal.iterdir()] == ["big"] and (goal / "big").read_text() == "before"


def test_an_archive_leads_nowhere_else(tmp_path: Path) -> None:
    for name in ("../escaped", "a/../../escaped", "other/file"):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        goal = tmp_path / "goal"
        goal.mkdir(exist_ok=True)
        with pytest.raises(CopyRefused):
            unpacking(goal).unpack(io.BytesIO(made.getvalue()), "a", "a")
    assert not (tmp_path / "escaped").exists()


def test_folders_that_are_too_deep_are_refused_and_others_left_out(tmp_path: Path) -> None:
    path = deep = tmp_path / "top"
    for _ in range(DEPTH_MAX + 1):
        deep = deep / "d"
    deep.mkdir(parents=True)
    before = open_count()
    with pytest.raises(CopyRefused, match="nested"):
        archive_of(path, "top")
    assert open_count() == before
    with tarfile.open(fileobj=io.BytesIO(archive_of(path, "top", left_out={path.stat().st_dev}))) as archive:
        assert archive.getnames() == ["top"]


def test_a_person_s_own_archive_keeps_its_names_and_devices_are_left_out(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind in (("./a/b/c", tarfile.REGTYPE), ("null", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            archive.addfile(entry)
    done = unpacking(tmp_path)
    done.unpack(io.BytesIO(made.getvalue()), None, "")
    assert (tmp_path / "a" / "b" / "c").is_file()
    assert done.skipped == ["null"] and not (tmp_path / "null").exists()
