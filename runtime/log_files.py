"""The rotated files of one task's log: folder/000001.log, 000002.log, ...; the highest is written to.

A reader keeps (number, offset): rotation only ever adds a number and removes the lowest. One that is not written to may
have been compressed, to 000001.log.gz (log_archive.py); offsets are those of the plain file then too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from runtime import log_archive, log_format

ARCHIVED = ".log.gz"
RECORD_BYTES_MAX = log_format.LINE_BYTES_MAX + 64


def numbers(folder: Path) -> list[int]:
    """Of the files that there are, oldest first; empty where the folder is gone."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    stems = {name.removesuffix(".gz").removesuffix(".log") for name in names if name.endswith((".log", ARCHIVED))}
    return sorted(int(stem) for stem in stems if stem.isdigit())


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.log"


def archive_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}{ARCHIVED}"


def changed_unix_ms(folder: Path, number: int) -> float:
    """When it was last written to. Raises OSError."""
    try:
        return path_of(folder, number).stat().st_mtime * 1000
    except FileNotFoundError:
        return archive_of(folder, number).stat().st_mtime * 1000


def archive(folder: Path, going: Callable[[], None]) -> None:
    """Compresses what is not written to any more; one that is removed meanwhile is passed over. `going` ends it by
    raising. Raises OSError."""
    for number in numbers(folder)[:-1]:
        plain = path_of(folder, number)
        if not plain.exists():
            continue
        try:
            log_archive.compress(plain, archive_of(folder, number), going)
        except FileNotFoundError:
            continue
        if plain.exists():
            plain.unlink(missing_ok=True)
        else:  # rotation has removed it, and this with it
            archive_of(folder, number).unlink(missing_ok=True)


class LogFiles:
    """Appends whole records; never holds more than `size_bytes_max * files_max` on disk (plus one batch)."""

    def __init__(self, folder: Path, size_bytes_max: int, files_max: int, age_s_max: int = 0) -> None:
        self._folder = folder
        self._size_bytes_max = size_bytes_max
        self._files_max = max(1, files_max)
        self._age_s_max = age_s_max  # 0: no bound
        self.rotated = False  # since somebody set it back
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._number = (numbers(folder) or [1])[-1]
        self._open()

    @property
    def end(self) -> tuple[int, int]:
        """Number of the file that is written to, and its size in bytes."""
        return self._number, self._size_bytes

    def append(self, records: bytes) -> None:
        """Blocking; raises OSError where the disk refuses. A batch is not split over files."""
        if self._size_bytes and (self._size_bytes + len(records) > self._size_bytes_max or self._is_old()):
            os.close(self._file)
            self._number += 1
            self._open()
            self.rotated = True
            for number in numbers(self._folder)[: -self._files_max]:
                path_of(self._folder, number).unlink(missing_ok=True)
                archive_of(self._folder, number).unlink(missing_ok=True)
        written = 0
        try:
            while written < len(records):
                written += os.write(self._file, records[written:])
        except OSError:
            os.ftruncate(self._file, self._size_bytes)  # no record is there in part
            raise
        self._size_bytes += written

    def close(self) -> None:
        os.close(self._file)

    def _is_old(self) -> bool:
        return 0 < self._age_s_max <= time.time() - self._begun_unix_s

    def _open(self) -> None:
        path = path_of(self._folder, self._number)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size_bytes = os.fstat(self._file).st_size
        if self._size_bytes:
            self._cut_torn_record(path)
        self._begun_unix_s = (self._first_unix_s(path) if self._size_bytes else None) or time.time()

    def _first_unix_s(self, path: Path) -> float | None:
        with path.open("rb") as file:
            return log_format.unix_s_of(file.read(log_format.STAMP_LENGTH))

    def _cut_torn_record(self, path: Path) -> None:
        """After a kill in the midst of a write the last record may lack its end: it is written again
        (log_intake.py)."""
        with path.open("rb") as file:
            start = max(0, self._size_bytes - RECORD_BYTES_MAX)
            file.seek(start)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data) and (whole or start == 0):
            self._size_bytes = start + whole
            os.ftruncate(self._file, self._size_bytes)
