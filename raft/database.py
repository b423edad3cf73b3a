"""The one SQLite file of a member: log, vote, and the store's tables in a form that a person can read.

    sqlite3 /var/lib/fairway/raft/cluster.sqlite "select name, text from tasks"

WAL with synchronous=FULL: a transaction that was committed survives a power cut. Every row that a restart
depends on carries a CRC-32, since SQLite itself does not notice a flipped bit.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from raft.errors import DiskFull, MemberFault
from raft.schema import KINDS
from raft.wal_check import check_wal

FILE_NAME = "cluster.sqlite"
FORMAT = 1
WAL_PAGES = 1000  # of 4 KiB, before the WAL is written back
CACHE_KIB = 2048
OPEN_BYTES_MIN = 256 << 10  # free on the disk, for the shared-memory file and the first pages of the WAL
NO_ROOM = "no room for the cluster's state: free some on the disk that holds it"

_TABLES = """
create table if not exists raft_log (
    log_index integer primary key, term integer not null, command blob not null, crc integer not null
) strict;
create table if not exists raft_state (
    one integer primary key check (one = 1), term integer not null, voted_for text,
    commit_index integer not null, crc integer not null
) strict;
create table if not exists raft_identity (
    one integer primary key check (one = 1), log_id integer not null, crc integer not null
) strict;
create table if not exists store_state (
    one integer primary key check (one = 1), applied_index integer not null, applied_term integer not null,
    revision integer not null, membership blob not null, crc integer not null
) strict;
create table if not exists requests (
    position integer primary key, request_id text not null, result blob not null, crc integer not null
) strict;
"""
_OBJECT_TABLE = """
create table if not exists {table} (
    id text primary key, name text not null, version integer not null, object blob not null,
    crc integer not null, text text
) strict, without rowid;
"""


def checksum(*parts: int | bytes | str | None) -> int:
    """CRC-32 over parts, each preceded by its length so that they cannot run into each other."""
    pieces: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes):
            content = part
        elif isinstance(part, str):
            content = part.encode()
        else:
            content = b"-" if part is None else b"%d" % part
        pieces += (b"%d:" % len(content), content)
    return zlib.crc32(b"".join(pieces))


def entry_checksum(index: int, term: int, command: bytes) -> int:
    """`checksum(index, term, command)` for the log, which computes one for every write of every member."""
    first, second = b"%d" % index, b"%d" % term
    return zlib.crc32(b"%d:%b%d:%b%d:%b" % (len(first), first, len(second), second, len(command), command))


def object_checksum(identifier: str, content: bytes) -> int:
    """`checksum(identifier, content)` for the many: a start computes one for every object."""
    name = identifier.encode()
    return zlib.crc32(b"%d:%b%d:%b" % (len(name), name, len(content), content))


def open_database(path: Path | str) -> sqlite3.Connection:
    """Opens or makes the file (or ":memory:"). The connection is in autocommit: transactions are explicit.

    It may be used from any one thread at a time. MemberFault where the file cannot be used; DiskFull where that
    is for want of room.
    """
    try:
        if path != ":memory:":
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_wal(Path(path))
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
        database.execute("pragma locking_mode=exclusive" if path == ":memory:" else "pragma journal_mode=wal")
        database.execute("pragma synchronous=full")
        database.execute("pragma cell_size_check=on")
        database.execute(f"pragma wal_autocheckpoint={WAL_PAGES}")
        database.execute(f"pragma cache_size=-{CACHE_KIB}")
        (version,) = database.execute("pragma user_version").fetchone()
        if version not in (0, FORMAT):
            raise MemberFault(f"{path} has format {version}, this software knows {FORMAT}: start the newer software")
        database.executescript("begin immediate;" + _TABLES + _object_tables() + "commit;")
        database.execute(f"pragma user_version={FORMAT}")
    except (sqlite3.Error, OSError) as error:
        if path != ":memory:" and _is_full(Path(path).parent):
            raise DiskFull(NO_ROOM) from error
        raise MemberFault(f"the cluster's state in {path} cannot be opened: {error}") from error
    if path != ":memory:":
        Path(path).chmod(0o600)
    return database


def _is_full(folder: Path) -> bool:
    """Whether the disk lacks room for what an opening writes: SQLite has many words for that (SQLITE_FULL,
    IOERR_SHMSIZE, CANTOPEN), each of which can mean something else too."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < OPEN_BYTES_MIN or (disk.f_files > 0 and disk.f_favail == 0)


def _object_tables() -> str:
    return "".join(_OBJECT_TABLE.format(table=kind.table) for kind in KINDS)
