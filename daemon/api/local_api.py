"""What root on a host asks of its own daemon: begin a cluster, join one, say how it is."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from daemon.api.caller import Caller
from daemon.api.grpc_service import Receive
from daemon.api.local_disaster import LocalDisaster, set_aside
from daemon.cluster_host import Parts
from daemon.config import Config
from daemon.doctor.consultation import Consultation, alone
from daemon.doctor.examination import Examiner
from daemon.errors import Kind, Refused
from daemon.identity import tokens
from daemon.identity.certificates import ca_fingerprint
from daemon.identity.host_description import describe_host, fairway_version
from daemon.identity.identity import Identity
from daemon.identity.initialise import initialise
from daemon.joining.join_client import join_cluster
from daemon.leader.leadership import now_unix_ms
from net.addresses import tunnel_mac
from proto import control_pb2 as control
from proto import doctor_pb2 as doctor
from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction
from raft.features import FEATURE_LEVEL, level


class Membership(Protocol):
    """The daemon as this API sees it (fairwayd.py)."""

    @property
    def parts(self) -> Parts | None: ...

    @property
    def phase(self) -> str: ...

    async def wait_started(self) -> None:
        """Returns when no part in a cluster is being started from what is on disk."""

    async def enter(self, identity: Identity, first: Transaction | None) -> Parts:
        """Starts everything that runs in a cluster."""

    async def reenter(self, change: Callable[[], Awaitable[None]]) -> Parts:
        """Ends this host's part in the cluster, changes what is on disk, begins it again."""


START_S_MAX = 20.0  # for the start that is under way, before one is told to try again


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
            await self._require_started("initialise")
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
            await self._require_started("join")
            if self._may_join_again(request.token):
                parts = await self._membership.reenter(lambda: self._join_again(request))
                return _joined(parts.identity)
            self._require_new("join")
            await self._membership.enter(await self._join(request), None)
            parts_now = self._membership.parts
            assert parts_now is not None
            return _joined(parts_now.identity)

    async def _join(self, request: control.JoinClusterRequest) -> Identity:
        description = await trio.to_thread.run_sync(describe_host, self._config)
        return await join_cluster(self._config, request, description, now_unix_ms())

    def _may_join_again(self, token: str) -> bool:
        """A host of this very cluster that no leader hears any more: the cluster was restored elsewhere."""
        parts = self._membership.parts
        if parts is None or parts.connection.connected:
            return False
        if parts.voter is not None and parts.voter.member.status().quorum:
            return False
        return tokens.parse(token).ca_sha256 == ca_fingerprint(parts.identity.ca_certificate)

    async def _join_again(self, request: control.JoinClusterRequest) -> None:
        """With the key that the host has, so it stays the same node; containers go on."""
        await self._join(request)
        await trio.to_thread.run_sync(set_aside, self._config.host.state_folder / "raft")

    async def restore(self, receive: Receive, caller: Caller) -> control.RestoreReply:
        async with self._changing:
            await self._require_started("restore")
            self._require_new("restore")
            return await self._disaster.restore(receive)

    async def recover(self, request: control.RecoverRequest, caller: Caller) -> control.RecoverReply:
        async with self._changing:
            await self._require_started("recover")
            return await self._disaster.recover(request)

    async def examine_host(self, _request: doctor.DoctorRequest, _caller: Caller) -> doctor.DoctorReply:
        parts = self._membership.parts
        if parts is not None and parts.voter is not None:
            return await Consultation(parts.voter, parts.doctor).ask()
        if parts is not None:
            return alone(await parts.doctor.examine(), parts.identity.membership.node_name, member=True)
        return alone(await Examiner(self._config, None, list).examine(), socket.gethostname(), member=False)

    async def _require_started(self, what: str) -> None:
        """A member that is just starting has no part in its cluster yet, and is no new host for that: what begins
        anew would take away the state that is being read."""
        with trio.move_on_after(START_S_MAX):
            await self._membership.wait_started()
        if self._membership.phase == "starting":
            raise Refused(
                f"cannot {what}: this host belongs to a cluster, and its fairwayd has not yet started its part in it; "
                "nothing was changed: try again in a moment, and see the daemon's log if this stays so",
                Kind.NOT_POSSIBLE,
            )

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
            feature_level=FEATURE_LEVEL,
        )
        parts = self._membership.parts
        if parts is not None:
            _describe_member(reply, parts)
        return reply


def _joined(identity: Identity) -> control.JoinClusterReply:
    return control.JoinClusterReply(
        cluster_id=identity.cluster_id,
        cluster_name=identity.membership.cluster_name,
        node_id=identity.node_id,
        voter=identity.membership.voter,
    )


def _describe_member(reply: control.LocalStatusReply, parts: Parts) -> None:
    membership = parts.identity.membership
    reply.cluster_id, reply.node_id = membership.cluster_id, membership.node_id
    reply.node_name = membership.node_name
    view = parts.agent.view
    reply.revision = view.revision
    reply.task_count = sum(task.status.state == objects.TASK_STATE_RUNNING for task in view.tasks)
    reply.quorum = parts.connection.connected
    if view.cluster is not None:
        reply.cluster_feature_level = level(view.cluster.feature_level)
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
