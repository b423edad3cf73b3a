"""What root on a host asks of its own daemon: begin a cluster, join one, say how it is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Protocol

import trio

from daemon.api.caller import Caller
from daemon.api.grpc_service import Receive
from daemon.api.local_disaster import LocalDisaster
from daemon.cluster_host import Parts
from daemon.config import Config
from daemon.errors import Kind, Refused
from daemon.identity.host_description import describe_host, fairway_version
from daemon.identity.identity import Identity
from daemon.identity.initialise import initialise
from daemon.joining.join_client import join_cluster
from daemon.leader.leadership import now_unix_ms
from net.addresses import tunnel_mac
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction


class Membership(Protocol):
    """The daemon as this API sees it (fairwayd.py)."""

    @property
    def parts(self) -> Parts | None: ...

    @property
    def phase(self) -> str: ...

    async def enter(self, identity: Identity, first: Transaction | None) -> Parts:
        """Starts everything that runs in a cluster."""

    async def reenter(self, change: Callable[[], None]) -> Parts:
        """Ends this host's part in the cluster, changes what is on disk, begins it again."""


class LocalApi:
    """The Local service."""

    def __init__(self, config: Config, membership: Membership) -> None:
        self._config = config
        self._membership = membership
        self._changing = trio.Lock()
        self._started_s = time.monotonic()
        self._disaster = LocalDisaster(config, membership)

    async def initialise(self, request: control.InitialiseRequest, caller: Caller) -> control.InitialiseReply:
        async with self._changing:
            self._require_new("initialise")
            description = await trio.to_thread.run_sync(describe_host, self._config)
            new = initialise(self._config, request, description, now_unix_ms(), tunnel_mac)
            # A try that failed half-way may have left a log that belongs to no cluster.
            await trio.to_thread.run_sync(shutil.rmtree, self._config.host.state_folder / "raft", True)
            new.identity.write_keys()
            await self._membership.enter(new.identity, new.transaction)
            return new.reply

    async def join(self, request: control.JoinClusterRequest, caller: Caller) -> control.JoinClusterReply:
        async with self._changing:
            self._require_new("join")
            description = await trio.to_thread.run_sync(describe_host, self._config)
            identity = await join_cluster(self._config, request, description, now_unix_ms())
            await self._membership.enter(identity, None)
            return control.JoinClusterReply(
                cluster_id=identity.cluster_id,
                cluster_name=identity.membership.cluster_name,
                node_id=identity.node_id,
                voter=identity.membership.voter,
            )

    async def restore(self, receive: Receive, caller: Caller) -> control.RestoreReply:
        async with self._changing:
            self._require_new("restore")
            return await self._disaster.restore(receive)

    async def recover(self, request: control.RecoverRequest, caller: Caller) -> control.RecoverReply:
        async with self._changing:
            return await self._disaster.recover(request)

    def _require_new(self, what: str) -> None:
        parts = self._membership.parts
        if parts is not None:
            raise Refused(
                f"cannot {what}: this host belongs to cluster {parts.identity.membership.cluster_name!r} as "
                f"{parts.identity.membership.node_name!r}; remove it there first with `fairway node rm`",
                Kind.NOT_POSSIBLE,
            )

    async def status(self, _request: control.LocalStatusRequest, caller: Caller) -> control.LocalStatusReply:
        reply = control.LocalStatusReply(
            phase=self._membership.phase,
            fairway_version=fairway_version(),
            uptime_ms=int((time.monotonic() - self._started_s) * 1000),
            raft_role="none",
        )
        parts = self._membership.parts
        if parts is not None:
            _describe_member(reply, parts)
        return reply


def _describe_member(reply: control.LocalStatusReply, parts: Parts) -> None:
    membership = parts.identity.membership
    reply.cluster_id, reply.node_id = membership.cluster_id, membership.node_id
    reply.node_name = membership.node_name
    view = parts.agent.view
    reply.revision = view.revision
    reply.task_count = sum(task.status.state == objects.TASK_STATE_RUNNING for task in view.tasks)
    reply.quorum = parts.connection.connected
    if parts.voter is not None:
        status = parts.voter.member.status()
        reply.raft_role = status.role
        reply.leader_id = status.leader_id or ""
        reply.quorum = status.quorum
        reply.revision = status.applied_revision
        reply.message = status.error
    elif parts.connection.leader is not None and parts.connection.connected:
        reply.leader_id = parts.connection.leader.node_id
    problems = [reply.message, parts.connection.error, parts.runtime.error, parts.renewal.problem]
    if parts.backups is not None:
        problems.append(parts.backups.problem)
    reply.message = "; ".join(problem for problem in problems if problem)
