"""Fills a fresh volume with what the image has at the place where it is mounted, as Docker does.

All here is blocking; the source may be visible in the calling thread's mount namespace only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from storage.errors import NoSpace

LINKS_MAX = 16


def populate(volume_path: Path, image_root: Path, inside: str) -> bool:
    """Copies the folder `inside` of the image into an empty volume; True where something was copied.

    Owners, modes, times, links and extended attributes are kept, and the volume's own folder gets those of
    the image's. All or nothing: the copy is made beside and renamed. Raises NoSpace or OSError, and then
    the volume stays empty.
    """
    source = _in_root(image_root, inside)
    if source is None or any(volume_path.iterdir()):
        return False
    beside = volume_path.with_name(f".{volume_path.name}.filling")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _copy_folder(source, beside)
        beside.rename(volume_path)  # onto an empty folder: rename(2) replaces it
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False  # something wrote into the volume meanwhile: that stays
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"the disk below {volume_path.parent} is full") from None
        raise
    return True


def _in_root(root: Path, inside: str) -> Path | None:
    """The folder with links followed as if `root` were /; None where there is no such folder."""
    done: list[str] = []
    pending = inside.split("/")
    links = 0
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > LINKS_MAX:
                return None
            target = str(here.readlink())
            done = [] if target.startswith("/") else done
            pending = target.split("/") + pending
        else:
            done.append(part)
    found = root.joinpath(*done)
    return found if found.is_dir() else None


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            there = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                _copy_folder(Path(entry.path), there)
            elif entry.is_symlink():
                there.symlink_to(Path(entry.path).readlink())
                _copy_attributes(Path(entry.path), there)
            elif entry.is_file(follow_symlinks=False):
                shutil.copyfile(entry.path, there, follow_symlinks=False)
                _copy_attributes(Path(entry.path), there)
            else:
                _copy_special(Path(entry.path), there)
    _copy_attributes(source, target)


def _copy_special(source: Path, target: Path) -> None:
    """A FIFO or device; a socket means nothing without who listens."""
    info = source.lstat()
    if stat.S_ISSOCK(info.st_mode):
        return
    os.mknod(target, info.st_mode, info.st_rdev)
    _copy_attributes(source, target)


def _copy_attributes(source: Path, target: Path) -> None:
    info = source.lstat()
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    # After chown, which clears set-user-ID bits and file capabilities; copystat brings both back.
    with contextlib.suppress(NotImplementedError):
        shutil.copystat(source, target, follow_symlinks=False)
