"""The control API's methods about secrets and configs. What comes in is sealed before anything else is done with it."""

from __future__ import annotations

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.deploying.task_file_plan import (
    DEFAULT_TENANT,
    check_file,
    list_files,
    plan_create_file,
    plan_remove_file,
)
from daemon.identity.file_sealing import prepared
from daemon.identity.identity import Identity
from daemon.leader.writer import swapped
from proto import control_pb2 as control
from proto import objects_pb2 as objects


def prepared_files(app: control.AppSpec, identity: Identity) -> list[objects.TaskFile]:
    """What an app's file defines, as it may be stored. Raises Refused."""
    found = []
    for file in app.files:
        check_file(file.kind, file.name, file.content)
        found.append(_prepared(identity, file.kind, app.tenant or DEFAULT_TENANT, file.name, file.content))
        found[-1].meta.labels.update(file.labels)
    return found


class ControlFiles:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def create_file(self, request: control.CreateFileRequest, caller: Caller) -> control.CreateFileReply:
        tenant, name = _named(request.name)
        check_file(request.kind, name, request.content)
        file = _prepared(self._context.identity, request.kind, tenant, name, request.content)
        file.meta.labels.update(request.labels)
        reply, _ = await self._context.leading().writer.commit(
            lambda store, now, new_id: swapped(plan_create_file(store, file, request, now, new_id)), caller.actor
        )
        return reply

    async def list_files(self, request: control.ListFilesRequest, _caller: Caller) -> control.ListFilesReply:
        tenant, name = _named(request.name)
        store = await self._context.current_store()
        return control.ListFilesReply(files=list_files(store, tenant, request.kind, name))

    async def remove_file(self, request: control.RemoveFileRequest, caller: Caller) -> control.RemoveFileReply:
        tenant, name = _named(request.name)
        file, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: swapped(plan_remove_file(store, tenant, request.kind, name)), caller.actor
        )
        return control.RemoveFileReply(file=file)


def _prepared(
    identity: Identity, kind: objects.FileKind.ValueType, tenant: str, name: str, content: bytes
) -> objects.TaskFile:
    return prepared(kind, tenant, name, content, identity.cluster_id, identity.cluster_key)


def _named(text: str) -> tuple[str, str]:
    """Tenant and name of NAME or TENANT/NAME."""
    tenant, slash, name = text.rpartition("/")
    return (tenant if slash else DEFAULT_TENANT), name
