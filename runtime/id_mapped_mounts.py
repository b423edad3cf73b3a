"""Mounts that show files with other owners: mount_setattr(2) with MOUNT_ATTR_IDMAP."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from runtime import mount_trees as trees

_SYS_MOUNT_SETATTR = 442
_MOUNT_ATTR_IDMAP = 0x0010_0000


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_mapped(source: Path, target: Path, user_namespace: int) -> None:
    """Mounts `source` and what is mounted below it once more at `target`, which is there: an owner's number n becomes
    what n within the user namespace (a descriptor) is outside. Raises OSError, where a file system cannot do that, too.
    """
    tree = trees.clone(source, recursive=True)
    try:
        attributes = _MountAttributes(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
        trees.checked(
            trees.libc.syscall(
                ctypes.c_long(_SYS_MOUNT_SETATTR),
                ctypes.c_int(tree),
                b"",
                ctypes.c_uint(trees.AT_EMPTY_PATH | trees.AT_RECURSIVE),
                ctypes.byref(attributes),
                ctypes.c_size_t(ctypes.sizeof(attributes)),
            ),
            source,
        )
        trees.attach(tree, target)
    finally:
        os.close(tree)
