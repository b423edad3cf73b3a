"""What root does on one host after a disaster: restore a backup, recover a survivor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import trio

from daemon.api.grpc_service import Receive
from daemon.backup.recover import plan_recovery, survivor
from daemon.backup.restore import restored
from daemon.cluster_host import Parts
from daemon.config import Config
from daemon.errors import Kind, Refused
from daemon.identity.host_description import describe_host
from daemon.identity.identity import IdentityBroken
from daemon.leader.leadership import now_unix_ms
from net.addresses import tunnel_mac
from proto import control_pb2 as control
from proto.backup_file import DATA_BYTES_MAX
from raft.errors import MemberFault


class Reentry(Protocol):
    """The daemon as this API sees it (fairwayd.py)."""

    @property
    def parts(self) -> Parts | None: ...

    async def reenter(self, change: Callable[[], Awaitable[None]]) -> Parts:
        """Ends this host's part in the cluster, changes what is on disk, begins it again."""


class LocalDisaster:
    """Part of the Local service; the caller makes sure that one call runs at a time."""

    def __init__(self, config: Config, membership: Reentry) -> None:
        self._config = config
        self._membership = membership

    async def restore(self, receive: Receive) -> control.RestoreReply:
        """On a host without a cluster; see daemon/backup/restore.py."""
        folder = self._config.host.state_folder / "incoming"
        description = await trio.to_thread.run_sync(describe_host, self._config)
        try:
            await trio.to_thread.run_sync(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
            with tempfile.TemporaryFile(dir=folder) as file:
                request = await _received(receive, file)
                file.seek(0)
                made = await trio.to_thread.run_sync(
                    restored, self._config, file, request, description, now_unix_ms(), tunnel_mac
                )
            if request.plan_only:
                return control.RestoreReply(plan=made.reply.plan, cluster_name=made.reply.cluster_name)
            raft = self._config.host.state_folder / "raft"
            await self._membership.reenter(lambda: trio.to_thread.run_sync(_replace_state, raft, made.write))
        except (OSError, MemberFault, IdentityBroken) as error:
            raise Refused(f"not restored: {error}", Kind.NOT_POSSIBLE) from error
        return made.reply

    async def recover(self, request: control.RecoverRequest) -> control.RecoverReply:
        """On a voter that has lost its majority for good; see daemon/backup/recover.py."""
        parts = self._membership.parts
        if parts is None or parts.voter is None:
            raise Refused("cannot recover: this host is no voter of a cluster", Kind.NOT_POSSIBLE)
        plan = await plan_recovery(parts.voter)
        if request.plan_only:
            return control.RecoverReply(plan=plan)
        alone = survivor(parts.voter, now_unix_ms())
        try:
            await self._membership.reenter(lambda: trio.to_thread.run_sync(alone.go_on_alone, request.last_index))
        except (OSError, MemberFault) as error:
            raise Refused(f"not recovered: {error}", Kind.NOT_POSSIBLE) from error
        message = f"This host is the only voter now. The state as it was before is kept in {alone.kept}."
        return control.RecoverReply(plan=plan, message=message)


async def _received(receive: Receive, file: BinaryIO) -> control.RestoreRequest:
    """The first message, without data; all data is in `file`."""
    first: control.RestoreRequest | None = None
    size_bytes = 0
    while (message := await receive()) is not None:
        first = first or message
        size_bytes += len(message.data)
        if size_bytes > DATA_BYTES_MAX:
            raise Refused(f"the backup is larger than {DATA_BYTES_MAX >> 30} GiB", Kind.EXHAUSTED)
        await trio.to_thread.run_sync(file.write, message.data)
    if first is None:
        raise Refused("cannot restore: no backup was sent")
    first.ClearField("data")
    return first


def _replace_state(folder: Path, write: Callable[[], None]) -> None:
    set_aside(folder)
    write()


def set_aside(raft_folder: Path) -> None:
    """Consensus state that belongs to no cluster of this host's any more; it is kept once, for a person."""
    if raft_folder.exists():
        kept = raft_folder.with_name("raft.removed")
        shutil.rmtree(kept, ignore_errors=True)
        raft_folder.rename(kept)
