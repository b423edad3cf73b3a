"""A disk whose SQLite state is in real files, torn by power cuts as sectors that were not synced are.

With write-ahead logging and synchronous=FULL a commit appends to the WAL and syncs it; a checkpoint writes the
synced WAL into the database and syncs that. So a cut within a commit leaves any mixture of the old and new
sectors of the WAL beside the old database, or the new WAL beside any mixture of the old and new database.
(https://www.sqlite.org/wal.html, https://www.sqlite.org/atomiccommit.html)
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from pathlib import Path

from raft.database import open_database
from raft.simulation.disk import Disk, formed

SECTOR_BYTES = 512
WAL_HEADER_BYTES = 32
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - only a place where syncs are quick


class FileDisk(Disk):
    """Like Disk, in a folder of its own that `close` removes."""

    def __init__(self, content: bytes, dice: random.Random) -> None:
        self._dice = dice
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None)
        self._path = Path(self._folder.name) / "cluster.sqlite"
        self._path.write_bytes(content)
        super().__init__(content)

    def __post_init__(self) -> None:
        self._connection = self._open()

    def lose_power(self) -> None:
        database, log = self._files()
        self._put(database, log)
        self.broken = self.error_next = False
        self.cut_in_statements, self.cut_at = 0, ""

    def lose_all(self) -> None:
        self._put(formed(0), b"")
        self.lose_power()

    def close(self) -> None:
        self._connection.close()
        self._folder.cleanup()

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self._path)
        connection.execute("pragma wal_autocheckpoint=8")  # so that cuts hit checkpoints too
        return connection

    def _cut(self, sql: str) -> None:
        if sql != "commit":
            return
        self.torn += 1
        before, log_before = self._files()
        self._connection.execute(sql)
        after, log_after = self._files()
        if before != after and self._dice.random() < 0.7:
            self._put(_torn(before, after, self._dice), log_after)
        else:
            # A log that begins anew has its header synced before its first frame is written (walWriteFrames).
            written = log_after[:WAL_HEADER_BYTES] + log_before[WAL_HEADER_BYTES:]
            self._put(before, _torn(written, log_after, self._dice))

    def _files(self) -> tuple[bytes, bytes]:
        log = Path(f"{self._path}-wal")
        return self._path.read_bytes(), log.read_bytes() if log.exists() else b""

    def _put(self, database: bytes, log: bytes) -> None:
        self._connection.close()
        Path(f"{self._path}-shm").unlink(missing_ok=True)
        self._path.write_bytes(database)
        Path(f"{self._path}-wal").write_bytes(log)
        self._connection = self._open()


def _torn(before: bytes, after: bytes, dice: random.Random) -> bytes:
    """Each sector is the old one or the new one, or where there was none: absent or zero."""
    length = dice.choice((len(before), len(after), dice.randint(min(len(before), len(after)), len(after))))
    share = dice.random()
    parts: list[bytes] = []
    for start in range(0, length, SECTOR_BYTES):
        new = dice.random() < share
        end = min(start + SECTOR_BYTES, length)
        parts.append((after if new else before)[start:end].ljust(end - start, b"\0"))
    return b"".join(parts)
