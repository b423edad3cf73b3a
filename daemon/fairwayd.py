"""The daemon: opens its socket, and runs a `ClusterHost` for as long as the host belongs to a cluster."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TextIO

import trio

from daemon.api.caller import Caller, caller_of
from daemon.api.control_apps import ControlApps
from daemon.api.control_backup import ControlBackup
from daemon.api.control_budgets import ControlBudgets
from daemon.api.control_cluster import ControlCluster
from daemon.api.control_doctor import ControlDoctor
from daemon.api.control_encryption import ControlEncryption
from daemon.api.control_files import ControlFiles
from daemon.api.control_garbage import ControlGarbage
from daemon.api.control_hands import ControlHands
from daemon.api.control_images import ControlImages
from daemon.api.control_jobs import ControlJobs
from daemon.api.control_policies import ControlPolicies
from daemon.api.control_raft import ControlRaft
from daemon.api.control_registries import ControlRegistries
from daemon.api.control_tasks import ControlTasks
from daemon.api.forwarding import forwarded_actor
from daemon.api.grpc_server import port_server, unix_server
from daemon.api.grpc_service import Context, Method, Receive, Send, service_handler
from daemon.api.host_api import HostApi
from daemon.api.local_api import LocalApi
from daemon.cluster_host import ClusterHost, Parts
from daemon.config import Config
from daemon.errors import Kind, Refused
from daemon.identity.certificates import PeerIdentity, PeerKind
from daemon.identity.identity import Identity
from daemon.identity.tls import NodeTls
from daemon.only_daemon import only_daemon
from daemon.systemd import DescriptorStore
from proto import control_pb2, host_pb2
from proto import objects_pb2 as objects
from proto.grpc_trio import Portal
from proto.store_pb2 import Transaction

logger = logging.getLogger(__name__)

LOCAL = control_pb2.DESCRIPTOR.services_by_name["Local"]
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"]
HOST = host_pb2.DESCRIPTOR.services_by_name["Host"]

HAND_OVER_S_MAX = 3.0  # a stop waits no longer for another host to lead
ANSWERED_BY_ANY_VOTER = ("RaftStatus", "Doctor", "TracePath", "ReadMetrics")  # when nobody leads as well
ASKED_BY_VOTERS = ("Exec", "ReadLog", "Examine", "ObservePath", "ReadMetrics")  # of hosts, on behalf of operators

NOT_A_MEMBER = "this host belongs to no cluster yet; run `fairway init` to begin one or `fairway join` to enter one"
NOT_THERE_NOW = "fairwayd on this host is starting or stopping; nothing was changed: try again in a moment"


class Fairwayd:
    """One daemon; `run` serves until cancelled."""

    def __init__(self, config: Config) -> None:
        self.parts: Parts | None = None
        self.phase = "new"  # or "starting", "member", "removed"
        self._starting: trio.Event | None = None  # a part in a cluster that is on disk; set when that is over
        self._belongs = False  # to a cluster, by what is on disk
        self._config = config
        self._descriptors = DescriptorStore()
        self._nursery: trio.Nursery | None = None
        self._belonging: tuple[trio.CancelScope, trio.Event] | None = None  # to end it, and when it has ended
        self._portal: Portal | None = None
        self._only: TextIO | None = None  # held for as long as this process lives

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Raises Refused where the socket or a port cannot be had, IdentityBroken, MemberFault."""
        self._only = await trio.to_thread.run_sync(only_daemon, self._config.host.run_folder)
        identity = await trio.to_thread.run_sync(Identity.load, self._config.identity_folder)
        async with trio.open_nursery() as nursery:
            self._nursery, self._portal = nursery, Portal(nursery)
            handlers = [
                service_handler(LOCAL, LocalApi(self._config, self), self._portal, self._authorise_local),
                service_handler(CONTROL, _Control(self), self._portal, self._authorise_local, self._redirect),
            ]
            async with unix_server(self._config.socket_path, handlers, [LOCAL.full_name, CONTROL.full_name]):
                if identity is not None:
                    self._belongs = True
                    with self._start_under_way():
                        await self.enter(identity, None)
                logger.info("fairwayd is ready (%s)", self.phase)
                task_status.started()
                await trio.sleep_forever()

    async def enter(self, identity: Identity, first: Transaction | None) -> Parts:
        """Starts everything that runs in a cluster; see local_api.py."""
        assert self._nursery is not None
        parts: Parts = await self._nursery.start(self._belong, identity, first)
        return parts

    async def reenter(self, change: Callable[[], Awaitable[None]]) -> Parts:
        """Ends this host's part in its cluster, if it has one, runs `change` on what is on disk, and begins
        again with what is there then. Containers go on. Raises what `change` raises, after beginning again.
        Goes on to its end when the caller is cancelled: the host would be left without its part."""
        assert self._nursery is not None
        results: list[Parts | Exception] = []
        done = trio.Event()

        async def run() -> None:
            try:
                results.append(await self._reenter(change))
            except Exception as error:
                results.append(error)
            finally:
                done.set()

        self._nursery.start_soon(run)
        await done.wait()
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    async def _reenter(self, change: Callable[[], Awaitable[None]]) -> Parts:
        if self._belonging is not None:
            scope, ended = self._belonging
            scope.cancel()
            await ended.wait()
        with self._start_under_way():
            try:
                await change()
            finally:
                identity = await trio.to_thread.run_sync(Identity.load, self._config.identity_folder)
                self._belongs = identity is not None
                parts = await self.enter(identity, None) if identity is not None else None
        if parts is None:
            raise Refused(NOT_A_MEMBER, Kind.NOT_POSSIBLE)
        return parts

    async def wait_started(self) -> None:
        """Returns when no part in a cluster is being started from what is on disk."""
        while self._starting is not None:
            await self._starting.wait()

    @contextlib.contextmanager
    def _start_under_way(self) -> Iterator[None]:
        """Until its end the host has no part in a cluster, and yet is no new one."""
        self._starting = started = trio.Event()
        before, self.phase = self.phase, "starting"
        try:
            yield
        finally:
            if not self._belongs:
                self.phase = before
            self._starting = None
            started.set()

    async def hand_over(self) -> None:
        """Before a stop: another voter leads at once, instead of after an election; in bounded time."""
        if self.parts is not None and self.parts.voter is not None:
            with trio.move_on_after(HAND_OVER_S_MAX):
                await self.parts.voter.leadership.hand_over()

    async def _belong(self, identity: Identity, first: Transaction | None, task_status: trio.TaskStatus[Parts]) -> None:
        ended = trio.Event()
        try:
            await self._belong_until_ended(identity, first, ended, task_status)
        finally:
            self._belonging = None
            ended.set()

    async def _belong_until_ended(
        self, identity: Identity, first: Transaction | None, ended: trio.Event, task_status: trio.TaskStatus[Parts]
    ) -> None:
        assert self._portal is not None
        async with trio.open_nursery() as nursery:
            self._belonging = nursery.cancel_scope, ended
            host = ClusterHost(self._config, identity, self._descriptors)

            async def run(task_status: trio.TaskStatus[Parts]) -> None:
                removed = await host.run(first, task_status=task_status)
                if removed:
                    await trio.to_thread.run_sync(self._leave, identity)
                    nursery.cancel_scope.cancel()

            parts: Parts = await nursery.start(run)
            handlers = [
                service_handler(CONTROL, _Control(self), self._portal, self._authorise, self._redirect),
                service_handler(HOST, HostApi(parts.host_services), self._portal, self._authorise_host),
            ]
            async with port_server(
                self._config.api.listen_address,
                self._config.api.port,
                NodeTls(identity).server_credentials(),
                handlers,
                [CONTROL.full_name, HOST.full_name],
            ):
                self.parts, self.phase, self._belongs = parts, "member", True
                nursery.start_soon(parts.connection.run)
                task_status.started(parts)
                try:
                    await trio.sleep_forever()
                finally:
                    self.parts = None

    def _leave(self, identity: Identity) -> None:
        """Forgets the cluster that removed this host; its raft state is kept once, for a person."""
        self.phase, self._belongs = "removed", False
        identity.forget()
        raft = self._config.host.state_folder / "raft"
        kept = raft.with_name("raft.removed")
        shutil.rmtree(kept, ignore_errors=True)
        if raft.exists():
            raft.rename(kept)
        (self._config.host.state_folder / "host-state.pb").unlink(missing_ok=True)

    # ---- who may call what ---------------------------------------------------------------------------

    def _authorise_local(self, context: Context, _method: Method) -> Caller:
        caller = caller_of(context, None)
        if _method.descriptor.containing_service is CONTROL and self.parts and self.parts.voter is None:
            raise Refused(
                "this host is a worker and has no say in the cluster; use an operator's context "
                "(`fairway context ls`) or run the command on a voter",
                Kind.DENIED,
            )
        return caller

    def _authorise(self, context: Context, _method: Method) -> Caller:
        parts = self._require_parts()
        caller = caller_of(context, parts.identity.cluster_id)
        if caller.peer is None or caller.peer.kind is PeerKind.OPERATOR:
            return caller
        actor = forwarded_actor(context)
        if actor and self._is_voter(caller.peer.name):
            kind, _, name = actor.partition("/")
            return Caller(PeerIdentity(PeerKind.OPERATOR, name) if kind == "operator" else None)
        raise Refused(f"{caller.actor} is a host; this call is for operators", Kind.DENIED)

    def _authorise_host(self, context: Context, method: Method) -> Caller:
        parts = self._require_parts()
        caller = caller_of(context, parts.identity.cluster_id)
        if caller.peer is None or caller.peer.kind is not PeerKind.NODE:
            raise Refused(f"{caller.actor} is no host; this call is for the cluster's hosts", Kind.DENIED)
        if method.descriptor.name in ASKED_BY_VOTERS and not self._is_voter(caller.peer.name):
            raise Refused(f"{caller.actor} has no say in the cluster", Kind.DENIED)
        if method.descriptor.name in ("ReadBlob", "FindBlobs") and self._node(caller.peer.name) is None:
            raise Refused(f"{caller.actor} is not a host of this cluster any more", Kind.DENIED)
        return caller

    def _node(self, node_id: str) -> objects.Node | None:
        parts = self._require_parts()
        if parts.voter is not None:
            return parts.voter.store.get(objects.Node, node_id)
        return parts.agent.view.node(node_id)

    def _is_voter(self, node_id: str) -> bool:
        node = self._node(node_id)
        return node is not None and node.role == objects.NODE_ROLE_VOTER

    def _require_parts(self) -> Parts:
        if self.parts is None and self._belongs:
            raise Refused(NOT_THERE_NOW, Kind.UNAVAILABLE)
        if self.parts is None:
            raise Refused(NOT_A_MEMBER, Kind.NOT_POSSIBLE)
        return self.parts

    async def _redirect(
        self, method: Method, caller: Caller, context: Context, receive: Receive, send: Send, request: Any
    ) -> bool:
        parts = self._require_parts()
        if method.descriptor.name in ANSWERED_BY_ANY_VOTER and parts.voter is not None:
            return False
        forwarder = parts.forwarder
        return await forwarder.redirect(method, caller, context, receive, send, request)

    def control_part(self, name: str) -> Callable[..., Any]:
        """The method of the control API with this name, on a host that can lead."""
        parts = self._require_parts()
        if parts.voter is None or parts.pulls is None:
            raise Refused(NOT_A_MEMBER, Kind.NOT_POSSIBLE)
        folder = self._config.host.state_folder / "incoming"
        for part in (
            ControlCluster(parts.voter, parts.events),
            ControlApps(parts.voter),
            ControlJobs(parts.voter),
            ControlTasks(parts.voter),
            ControlHands(parts.voter),
            ControlRaft(parts.voter),
            ControlEncryption(parts.voter),
            ControlPolicies(parts.voter, parts.doctor),
            ControlFiles(parts.voter),
            ControlBudgets(parts.voter),
            ControlBackup(parts.voter),
            ControlDoctor(parts.voter, parts.doctor),
            ControlImages(parts.voter, parts.runtime.images, folder, parts.images.changed, parts.pulls),
            ControlRegistries(parts.voter, parts.pulls),
            ControlGarbage(parts.voter),
        ):
            function: Callable[..., Any] | None = getattr(part, name, None)
            if function is not None:
                return function
        raise AttributeError(name)


class _Control:
    """The control API whose parts come and go with the membership."""

    def __init__(self, daemon: Fairwayd) -> None:
        self._daemon = daemon

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._call, name)

    async def _call(self, name: str, *arguments: Any) -> Any:
        return await self._daemon.control_part(name)(*arguments)
