"""Scheduled backups: each voter whose configuration says so writes its own, and keeps the newest few.

A voter writes what it has applied, which trails the leader by an instant; without a majority it writes none,
for what it holds may be long out of date.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import trio

from daemon.backup.schedule_plan import file_name, plan_schedule
from daemon.backup.writing import backup_pieces
from daemon.config import BackupConfig
from daemon.errors import Kind, Refused
from daemon.identity.atomic_files import sync_folder
from daemon.identity.identity import Identity
from proto.passphrase import WrongPassphrase, new_seal, passphrase_of, sealing_key
from raft.member import Member

logger = logging.getLogger(__name__)

RETRY_S = 60.0
LOOK_S_MAX = 600.0  # the clock or the folder may change
PASSPHRASE_FILE_BYTES_MAX = 65_536


class ScheduledBackups:
    """`problem` says why the newest try failed; empty while all is well."""

    def __init__(
        self, config: BackupConfig, member: Member, identity: Identity, now_unix_ms: Callable[[], int]
    ) -> None:
        self.problem = ""
        self._config = config
        self._folder = Path(config.folder)
        self._member = member
        self._identity = identity
        self._now_unix_ms = now_unix_ms

    async def run(self) -> None:
        """Makes backups until cancelled; returns at once where none are wanted."""
        if not self._config.folder:
            return
        while True:
            try:
                wait_s = await self._step()
                self.problem = ""
            except (OSError, Refused, WrongPassphrase) as error:
                self.problem = f"the scheduled backup to {self._folder} failed: {error}"
                logger.error("%s", self.problem)
                wait_s = RETRY_S
            await trio.sleep(min(wait_s, LOOK_S_MAX))

    async def _step(self) -> float:
        """Seconds until the next look."""
        if not self._member.status().quorum:
            return 1.0
        name = self._identity.membership.cluster_name
        listed = await trio.to_thread.run_sync(self._listed)
        step = plan_schedule(listed, name, self._now_unix_ms(), self._config.every_ms, self._config.keep)
        if step.due:
            await self._write(name)
            listed = await trio.to_thread.run_sync(self._listed)
            step = plan_schedule(listed, name, self._now_unix_ms(), self._config.every_ms, self._config.keep)
        for old in step.remove:
            (self._folder / old).unlink(missing_ok=True)
            logger.info("removed the old backup %s", old)
        return max(step.wait_ms / 1000, 1.0)

    def _listed(self) -> list[str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [path.name for path in self._folder.iterdir() if path.is_file()]

    async def _write(self, cluster_name: str) -> None:
        seal = new_seal()
        passphrase = await trio.to_thread.run_sync(self._passphrase)
        key = await trio.to_thread.run_sync(sealing_key, passphrase, seal)
        now_unix_ms = self._now_unix_ms()
        path = self._folder / file_name(cluster_name, now_unix_ms, self._member.store.revision)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            with await trio.to_thread.run_sync(_created, unfinished) as file:
                async with contextlib.aclosing(
                    backup_pieces(self._member, self._identity, seal, key, now_unix_ms)
                ) as pieces:
                    async for piece in pieces:
                        await trio.to_thread.run_sync(file.write, piece)
                await trio.to_thread.run_sync(file.flush)
                await trio.to_thread.run_sync(os.fsync, file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        await trio.to_thread.run_sync(sync_folder, self._folder)
        logger.info("wrote the backup %s (%d bytes)", path, path.stat().st_size)

    def _passphrase(self) -> bytes:
        path = Path(self._config.passphrase_file)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise Refused(f"{path} can be read by others than its owner: chmod 600 it", Kind.NOT_POSSIBLE)
                return passphrase_of(file.read(PASSPHRASE_FILE_BYTES_MAX))
        except OSError as error:
            raise Refused(f"the passphrase file {path}: {error.strerror}", Kind.NOT_POSSIBLE) from error


def _created(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
