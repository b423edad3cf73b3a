"""Reading an image's files without leaving a mount behind.

The view is mounted in the mount namespace of a thread that lives only for this (mount_namespaces(7)): when
the thread ends, even by SIGKILL of the daemon, the kernel takes the mount with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

T = TypeVar("T")

CLONE_NEWNS = 0x0002_0000  # linux/sched.h
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x1000, 0x4000, 0x4_0000  # linux/mount.h
FILE_BYTES_MAX = 256 * 1024
LINKS_MAX = 16


@dataclass(frozen=True)
class ViewMount:
    """As containerd gives it: an overlay of several folders, or a bind of one."""

    kind: str
    source: str
    options: Sequence[str]


async def with_view(mounts: Sequence[ViewMount], work_folder: Path, function: Callable[[Path], T]) -> T:
    """Calls `function(root of the image)` in a thread; raises what it raises, OSError if mounting fails.

    Cancellation waits for it. The paths mean nothing outside of `function`, and links in the image point
    anywhere: read with `read_text_in_root`, or check.
    """
    return await trio.to_thread.run_sync(_in_own_thread, mounts, work_folder, function)


def read_text_in_root(root: Path, path: str) -> str:
    """A small file of the image, "" where there is none; links are followed within the root only."""
    folder: list[str] = []
    pending = [part for part in path.split("/") if part]
    links = 0
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            folder = folder[:-1]
            continue
        here = root.joinpath(*folder, part)
        if here.is_symlink():
            links += 1
            if links > LINKS_MAX:
                return ""
            target = str(here.readlink())
            if target.startswith("/"):
                folder = []
            pending = target.split("/") + pending
        else:
            folder.append(part)
    final = root.joinpath(*folder)
    if not final.is_file():
        return ""
    with final.open("rb") as file:
        return file.read(FILE_BYTES_MAX).decode(errors="replace")


def _in_own_thread(mounts: Sequence[ViewMount], work_folder: Path, function: Callable[[Path], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _mount_privately(mounts, root)
            results.append(function(root))
        except BaseException as error:
            failures.append(error)

    work_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root = Path(tempfile.mkdtemp(dir=work_folder, prefix="view-"))
    thread = threading.Thread(target=body, name="image-view")
    thread.start()
    thread.join()
    root.rmdir()  # nothing is mounted on it outside of the thread that has ended
    if failures:
        raise failures[0]
    return results[0]


def _mount_privately(mounts: Sequence[ViewMount], root: Path) -> None:
    if len(mounts) != 1:
        raise OSError(errno.EINVAL, f"expected one mount of the image, got {len(mounts)}")
    view = mounts[0]
    library = ctypes.CDLL(None, use_errno=True)
    _check(library.unshare(CLONE_NEWNS), "a private mount namespace")
    _check(library.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "private propagation")
    if view.kind == "bind":
        _check(library.mount(view.source.encode(), os.fsencode(root), None, MS_BIND, None), "the view")
        return
    # One page holds all options: name the layers from the folder that they share. This thread has a
    # working directory of its own since it left the others' mount namespace.
    options, base = _shortened(view.options)
    os.chdir(base)
    data = ",".join(options).encode()
    _check(library.mount(b"overlay", os.fsencode(root), b"overlay", MS_RDONLY, data), "the view")


def _shortened(options: Sequence[str]) -> tuple[list[str], str]:
    kept = [option for option in options if option not in ("ro", "rw")]
    for place, option in enumerate(kept):
        if option.startswith("lowerdir="):
            layers = option.removeprefix("lowerdir=").split(":")
            base = os.path.commonpath(layers)
            names = [os.path.relpath(layer, base) for layer in layers]
            kept[place] = "lowerdir=" + ":".join(names)
            return kept, base
    return kept, "/"


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
