"""Backups for operators: streamed from the leader, of all that was committed before the call."""

from __future__ import annotations

import contextlib

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.grpc_service import Send
from daemon.backup.writing import backup_pieces
from daemon.leader.leadership import now_unix_ms
from proto import control_pb2 as control


class ControlBackup:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def create_backup(self, request: control.CreateBackupRequest, _caller: Caller, send: Send) -> None:
        await self._context.current_store()
        context = self._context
        made = backup_pieces(context.member, context.identity, request.seal, request.sealing_key, now_unix_ms())
        async with contextlib.aclosing(made) as pieces:
            async for piece in pieces:
                await send(control.BackupChunk(data=piece))
