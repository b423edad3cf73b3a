"""Unpacks a tar archive that comes as a stream below a folder, in bounded memory.

A file gets its name when it is whole: until then it has a name that begins with ".fairway-". What exists as a folder
stays as it is, what exists as anything else is replaced.
"""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from proto.copy_rules import CopyRefused, parts_of

CHUNK_BYTES = 128 << 10
SKIPPED_MAX = 20


class Incoming(Protocol):
    """Bytes as they come; b"" at the end."""

    def read(self, count: int, /) -> bytes: ...


@dataclass
class Unpacking:
    """`open_folder`: a descriptor of the folder with these names below the goal; FileNotFoundError, NotADirectoryError.
    `owner`: (user, group) for a file of the archive with these; None: whoever unpacks."""

    open_folder: Callable[[Sequence[str]], int]
    owner: Callable[[int, int], tuple[int, int] | None]
    keep_special_bits: bool = False
    file_count: int = 0
    byte_count: int = 0
    skipped: list[str] = field(default_factory=list)
    _made: list[tuple[list[str], tarfile.TarInfo]] = field(default_factory=list)

    def unpack(self, incoming: Incoming, first: str | None, name: str) -> None:
        """Entries below the name `first` get `name` instead ("": none); with `first` None all keep their own. Raises
        OSError whose filename is the entry's, CopyRefused."""
        try:
            with tarfile.open(fileobj=incoming, mode="r|", bufsize=CHUNK_BYTES) as archive:  # type: ignore[call-overload]
                for entry in _entries(archive):
                    parts = _renamed(parts_of(entry.name), first, name)
                    if parts:
                        self._take(archive, entry, parts, first, name)
        except tarfile.TarError as error:
            raise CopyRefused(f"this is no whole tar archive: {error}") from error
        finally:
            self._finish_folders([])

    def _take(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str], first: str | None, name: str
    ) -> None:
        self._finish_folders(parts)
        try:
            if entry.isdir():
                self._folder(parts, entry)
            elif entry.isreg():
                self._file(archive, entry, parts)
            elif entry.issym():
                with self._placed(parts) as (folder, temporary):
                    os.symlink(entry.linkname, temporary, dir_fd=folder)
                    self._give(entry, temporary, folder)
            elif entry.islnk():
                self._hard_link(_renamed(parts_of(entry.linkname), first, name), parts)
            elif entry.isfifo():
                with self._placed(parts) as (folder, temporary):
                    os.mkfifo(temporary, stat.S_IMODE(entry.mode), dir_fd=folder)
                    self._give(entry, temporary, folder)
            else:
                if len(self.skipped) < SKIPPED_MAX:
                    self.skipped.append(entry.name)
                return
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/".join(parts)) from error
        self.file_count += 1

    def _folder(self, parts: list[str], entry: tarfile.TarInfo) -> None:
        with self._open(parts[:-1]) as above:
            try:
                os.mkdir(parts[-1], 0o700, dir_fd=above)
            except FileExistsError:
                os.close(self.open_folder(parts))  # NotADirectoryError: it is something else
                return
            self._give(entry, parts[-1], above)
        self._made.append((parts, entry))

    def _finish_folders(self, next_parts: list[str]) -> None:
        """Modes and times of the folders that have been made, once nothing more comes into them."""
        while self._made and next_parts[: len(self._made[-1][0])] != self._made[-1][0]:
            parts, entry = self._made.pop()
            with suppress(OSError), self._open(parts) as folder:
                os.fchmod(folder, self._mode(entry))
                os.utime(folder, (entry.mtime, entry.mtime))

    def _file(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str]) -> None:
        content = archive.extractfile(entry)
        assert content is not None
        with self._placed(parts) as (folder, temporary):
            made = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            with os.fdopen(made, "wb", buffering=0) as file:
                while data := content.read(CHUNK_BYTES):
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) or 0 :]
                    self.byte_count += len(data)
                owner = self.owner(entry.uid, entry.gid)
                if owner is not None:
                    os.fchown(made, *owner)
                os.fchmod(made, self._mode(entry))  # after the owner, whose change takes bits away
                os.utime(made, (entry.mtime, entry.mtime))

    def _hard_link(self, source: list[str], parts: list[str]) -> None:
        if not source:
            raise CopyRefused(f"the archive's entry {'/'.join(parts)} is a link to what is not in it")
        with self._open(source[:-1]) as there, self._placed(parts) as (folder, temporary):
            os.link(source[-1], temporary, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)

    def _give(self, entry: tarfile.TarInfo, name: str, folder: int) -> None:
        owner = self.owner(entry.uid, entry.gid)
        if owner is not None:
            os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)

    def _mode(self, entry: tarfile.TarInfo) -> int:
        return stat.S_IMODE(entry.mode) & (0o7777 if self.keep_special_bits else 0o1777)

    @contextmanager
    def _open(self, parts: Sequence[str]) -> Iterator[int]:
        """Of folders that an archive leaves out, as it may, those that are missing are made."""
        try:
            folder = self.open_folder(parts)
        except FileNotFoundError:
            if not parts:
                raise
            with self._open(parts[:-1]) as above:
                os.mkdir(parts[-1], 0o755, dir_fd=above)
                owner = self.owner(0, 0)
                if owner is not None:
                    os.chown(parts[-1], *owner, dir_fd=above, follow_symlinks=False)
            folder = self.open_folder(parts)
        try:
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _placed(self, parts: list[str]) -> Iterator[tuple[int, str]]:
        """(folder, name) to make something under; afterwards it gets the name of `parts`, or on failure goes away."""
        with self._open(parts[:-1]) as folder:
            temporary = f".fairway-{secrets.token_hex(8)}"
            try:
                yield folder, temporary
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with suppress(FileNotFoundError):  # renamed; not of a hard link to what has the name already
                    os.unlink(temporary, dir_fd=folder)


def _entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (entry := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it keeps all of them otherwise
        yield entry


def _renamed(parts: list[str], first: str | None, name: str) -> list[str]:
    if first is None:
        return parts
    head = parts_of(first)
    if parts[: len(head)] != head:
        raise CopyRefused(f"the archive's entry {'/'.join(parts)!r} is not below {first!r}")
    return [*([name] if name else []), *parts[len(head) :]]
