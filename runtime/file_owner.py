"""Who owns what a thread creates: setfsuid(2), with the rights of root all the same."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x2008_0522  # linux/capability.h; two words of 32 capabilities each
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process_id", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def creating_as(user: int, group: int) -> Iterator[None]:
    """For this thread. Through a mount that shifts owners only those that it shifts to can create anything, be it root
    who asks. Raises OSError."""
    if not user and not group:
        yield
        return
    _libc.setfsgid(ctypes.c_uint(group))
    _libc.setfsuid(
        ctypes.c_uint(user)
    )  # and the thread may do less to files than root: credentials(7), capabilities(7)
    try:
        _take_all()
        yield
    finally:
        _libc.setfsuid(ctypes.c_uint(0))  # which gives that back
        _libc.setfsgid(ctypes.c_uint(0))


def _take_all() -> None:
    """What the thread may have, it has."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    if _libc.capget(ctypes.byref(header), data) == 0:
        for each in data:
            each.effective = each.permitted
        if _libc.capset(ctypes.byref(header), data) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, f"capabilities of a thread: {os.strerror(number)}")
