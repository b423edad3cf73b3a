"""Network namespaces kept alive by a file: made, entered and removed without a child process."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from net.errors import KernelRefused

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_libc = ctypes.CDLL(None, use_errno=True)


def is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted on the file; a plain file is what a reboot leaves."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def make_namespace(path: Path, within: Callable[[], T]) -> T:
    """Makes a network namespace, mounts it on `path` and runs `within` in it; raises KernelRefused.

    The thread that enters the namespace does nothing else and ends: no other code ever runs in the wrong one.
    """

    def body() -> T:
        path.touch(mode=0o600, exist_ok=True)
        _call("make a network namespace", _libc.unshare(_CLONE_NEWNET))
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        mounted = _libc.mount(source, os.fsencode(path), None, ctypes.c_ulong(_MS_BIND), None)
        _call(f"keep a network namespace at {path}", mounted)
        return within()

    return _in_own_thread(body)


def within_namespace(path: Path, within: Callable[[], T]) -> T:
    """Runs `within` in the network namespace at `path`."""

    def body() -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(f"enter the network namespace at {path}", _libc.setns(descriptor, _CLONE_NEWNET))
        finally:
            os.close(descriptor)
        return within()

    return _in_own_thread(body)


def remove_namespace(path: Path) -> None:
    """Unmounts and removes the file; the namespace itself goes with its last process. Repeatable."""
    if is_namespace(path) and _libc.umount2(os.fsencode(path), _MNT_DETACH):
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise KernelRefused(f"unmount the network namespace at {path}", code)
    path.unlink(missing_ok=True)


def _call(asked: str, result: int) -> None:
    if result:
        raise KernelRefused(asked, ctypes.get_errno())


def _in_own_thread(body: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(body())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="fairway network namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
