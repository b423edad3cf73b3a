"""The control API's methods about encryption of what goes between hosts."""

from __future__ import annotations

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.leader.encryption_changes_plan import plan_update_encryption
from daemon.leader.encryption_words_plan import encryption_reply
from daemon.leader.leadership import now_unix_ms
from proto import control_pb2 as control
from raft.store import Store


class ControlEncryption:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def get_encryption(self, _request: control.GetEncryptionRequest, _caller: Caller) -> control.EncryptionReply:
        return self._reply(await self._context.current_store())

    async def update_encryption(
        self, request: control.UpdateEncryptionRequest, caller: Caller
    ) -> control.EncryptionReply:
        await self._context.leading().writer.commit(
            lambda store, _now, _id: (plan_update_encryption(store, request), None), caller.actor
        )
        return self._reply(self._context.store)

    def _reply(self, store: Store) -> control.EncryptionReply:
        sessions = self._context.leading().sessions
        return encryption_reply(store, sessions.cluster_network_revision(), sessions.network_revisions(), now_unix_ms())
