"""Packs a file or folder into a tar archive (POSIX.1-2001 pax) as a stream, in bounded memory.

Everything is reached from descriptors and never by following a link below the first one, so whoever changes the tree
meanwhile gets nothing into the archive that is not in the tree.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field

from proto.copy_rules import CopyRefused

CHUNK_BYTES = 128 << 10
DEPTH_MAX = 200  # one descriptor each
HARD_LINKS_MAX = 100_000  # further ones are copied as files of their own
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
Owner = Callable[[int, int], tuple[int, int]]


def as_it_is(user: int, group: int) -> tuple[int, int]:
    """The numbers that the file system has."""
    return user, group


@dataclass
class Packing:
    """`owner`: (user, group) to write for those of a file; folders on file systems of `left_out` (st_dev) are passed
    over, but for the first; sockets and devices always are."""

    owner: Owner = as_it_is
    left_out: Collection[int] = ()
    _links: dict[tuple[int, int], str] = field(default_factory=dict)

    def pack(self, descriptor: int, name: str) -> Generator[bytes, None, None]:
        """The archive of what an O_PATH descriptor stands for, as `name`: chunks of CHUNK_BYTES, the last shorter.
        The descriptor is closed at the end. Raises OSError, CopyRefused."""
        waiting = bytearray()
        for piece in self._pieces(descriptor, name):
            waiting += piece
            while len(waiting) >= CHUNK_BYTES:
                yield bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
        yield bytes(waiting)

    def _pieces(self, descriptor: int, name: str) -> Iterator[bytes]:
        yield from self._entry(descriptor, name, 0)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _entry(self, descriptor: int, name: str, depth: int) -> Iterator[bytes]:
        try:
            info = os.fstat(descriptor)
            if depth and stat.S_ISDIR(info.st_mode) and info.st_dev in self.left_out:
                return
            header = self._header(descriptor, info, name)
            if header is None:
                return
            if stat.S_ISREG(info.st_mode) and header.type == tarfile.REGTYPE:
                yield from self._file(descriptor, header)
                return
            yield _packed(header)
            if stat.S_ISDIR(info.st_mode):
                yield from self._folder(descriptor, name, depth)
        finally:
            os.close(descriptor)

    def _header(self, descriptor: int, info: os.stat_result, name: str) -> tarfile.TarInfo | None:
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return None
        header = tarfile.TarInfo(name)
        header.type, header.mode, header.mtime = kind, stat.S_IMODE(info.st_mode), max(int(info.st_mtime), 0)
        header.uid, header.gid = self.owner(info.st_uid, info.st_gid)
        if kind == tarfile.SYMTYPE:
            header.linkname = os.readlink("", dir_fd=descriptor)
        elif kind == tarfile.REGTYPE and info.st_nlink > 1:
            first = self._links.get((info.st_dev, info.st_ino))
            if first is not None:
                header.type, header.linkname = tarfile.LNKTYPE, first
            elif len(self._links) < HARD_LINKS_MAX:
                self._links[info.st_dev, info.st_ino] = name
        return header

    def _file(self, descriptor: int, header: tarfile.TarInfo) -> Iterator[bytes]:
        """Exactly as long as its header says, however the file grows or shrinks meanwhile."""
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            header.size = left = os.fstat(opened).st_size
            yield _packed(header)
            while left:
                data = os.read(opened, min(left, CHUNK_BYTES)) or bytes(min(left, CHUNK_BYTES))
                left -= len(data)
                yield data
            yield bytes(-header.size % tarfile.BLOCKSIZE)
        finally:
            os.close(opened)

    def _folder(self, descriptor: int, name: str, depth: int) -> Iterator[bytes]:
        if depth >= DEPTH_MAX:
            raise CopyRefused(f"{name} is nested more than {DEPTH_MAX} folders deep")
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    try:
                        below = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    yield from self._entry(below, f"{name}/{entry.name}", depth + 1)
        finally:
            os.close(opened)


def _packed(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
