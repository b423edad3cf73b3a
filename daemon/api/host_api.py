"""What hosts ask of each other: sessions, leadership, certificates, blobs, logs, processes."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from daemon.agent.attachments import Attachments
from daemon.agent.debug_containers import DebugContainers
from daemon.agent.host_view import HostView
from daemon.agent.leader_connection import Leader
from daemon.api.attaching import serve_attach, serve_visit
from daemon.api.caller import Caller, require_node
from daemon.api.cluster_context import VoterContext
from daemon.api.control_raft import own_part
from daemon.api.debugging import serve_debug
from daemon.api.exec_relay import serve_exec
from daemon.api.grpc_service import Receive, Send
from daemon.api.host_hands import HostHands, StopTask
from daemon.api.task_file_contents import read_contents
from daemon.doctor.host_doctor import HostDoctor
from daemon.errors import Kind, Refused
from daemon.garbage.collector import Collector
from daemon.identity.renewal_plan import sign_renewal
from daemon.orchestration.task_states import ended
from daemon.pulling.blob_sending import BlobSending
from daemon.runtime_failures import refused
from proto import doctor_pb2 as doctor
from proto import host_pb2 as host
from runtime.errors import NotFound
from runtime.log_choice import LogChoice
from runtime.logs import LogLines
from runtime.runtime import Runtime

LOG_LINES_MAX = 500  # in one message
LOG_BYTES_MAX = 64 << 10  # the same, and one line
LOG_LOOK_S = 0.1
TASK_NEWS_S_MAX = 5.0  # who asks may have heard of a task before its host
_STREAMS = {host.LOG_STREAM_BOTH: "", host.LOG_STREAM_STDOUT: "stdout", host.LOG_STREAM_STDERR: "stderr"}


@dataclass(frozen=True)
class HostServices:
    """What a host offers to the others."""

    runtime: Runtime
    view: HostView
    leader: Callable[[], Leader | None]
    leader_moved: Callable[[Leader], None]
    voter: VoterContext | None  # None on a host without a part in consensus
    doctor: HostDoctor
    stop_task: StopTask
    blobs: BlobSending
    garbage: Collector | None = None
    attachments: Attachments = field(default_factory=Attachments)
    debugging: DebugContainers | None = None


class HostApi(HostHands):
    """The Host service."""

    def __init__(self, services: HostServices) -> None:
        super().__init__(services.runtime, services.stop_task)
        self._services = services

    async def session(self, receive: Receive, caller: Caller, send: Send) -> None:
        node_id = require_node(caller)
        await self._voter().leading().sessions.serve(node_id, receive, send)

    async def find_leader(self, _request: host.FindLeaderRequest, caller: Caller) -> host.FindLeaderReply:
        node_id = require_node(caller)
        voter = self._services.voter
        if voter is not None and voter.leadership.current is not None:
            voter.leadership.current.sessions.require_member(node_id)
        leader = self._services.leader()
        if leader is None:
            return host.FindLeaderReply()
        return host.FindLeaderReply(node_id=leader.node_id, address=leader.address, api_port=leader.api_port)

    async def leader_moved(self, request: host.LeaderMovedRequest, caller: Caller) -> host.LeaderMovedReply:
        node_id = require_node(caller)
        try:
            address = str(ipaddress.ip_address(request.address))
        except ValueError as error:
            raise Refused(f"the leader's new address: {error}", Kind.INVALID) from error
        self._services.leader_moved(Leader(node_id, address, request.api_port))
        return host.LeaderMovedReply()

    async def renew_certificate(
        self, request: host.RenewCertificateRequest, caller: Caller
    ) -> host.RenewCertificateReply:
        node_id = require_node(caller)
        voter = self._voter()
        leading = voter.leading()

        renewed, _ = await leading.writer.commit(
            lambda store, now, _id: sign_renewal(store, voter.identity.cluster_key, node_id, request.request_pem, now),
            caller.actor,
        )
        return renewed

    async def read_blob(self, request: host.ReadBlobRequest, caller: Caller, send: Send) -> None:
        require_node(caller)
        await self._services.blobs.send(request, send)

    async def find_blobs(self, request: host.FindBlobsRequest, caller: Caller) -> host.FindBlobsReply:
        require_node(caller)
        return await self._services.blobs.find(request)

    async def read_log(self, request: host.ReadLogRequest, caller: Caller, send: Send) -> None:
        require_node(caller)
        task = next((t for t in self._services.view.tasks if t.meta.id == request.task_id), None)
        name = task.meta.name if task is not None else request.task_id
        lines_in, lines_out = trio.open_memory_channel[host.LogLine](LOG_LINES_MAX)
        log = await self._log(request)

        async def read() -> None:
            async with lines_in:
                async for line in log:
                    await lines_in.send(line)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for first in lines_out:
                chunk = host.LogChunk(task_id=request.task_id, task_name=name, lines=[first])
                size_bytes = len(first.text)
                with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                    while len(chunk.lines) < LOG_LINES_MAX and size_bytes < LOG_BYTES_MAX:
                        line = lines_out.receive_nowait()
                        size_bytes += len(line.text)
                        chunk.lines.append(line)
                await send(chunk)

    async def _log(self, request: host.ReadLogRequest) -> LogLines:
        """A follower is often here before the container is made, or the host has heard of the task: it waits."""
        news_by = trio.current_time() + TASK_NEWS_S_MAX
        while True:
            try:
                return self._services.runtime.read_log(request.task_id, follow=request.follow, choice=_choice(request))
            except NotFound as error:
                task = next((t for t in self._services.view.tasks if t.meta.id == request.task_id), None)
                comes = trio.current_time() < news_by if task is None else not ended(task)
                if not request.follow or not comes:
                    raise refused(error) from error
            await trio.sleep(LOG_LOOK_S)

    async def exec(self, receive: Receive, caller: Caller, send: Send) -> None:
        require_node(caller)
        first: host.ExecInput | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of an exec says what to start")
        services = self._services
        if first.start.HasField("debug"):
            if services.debugging is None:
                raise Refused("this host makes no containers for debugging", Kind.NOT_POSSIBLE)
            await serve_debug(services.debugging, first.start, receive, send)
        elif first.start.attach and not self._awaits(first.start.task_id):
            await serve_visit(services.runtime, first.start, receive, send)
        elif first.start.attach:
            await serve_attach(services.runtime, services.attachments, self._knows, first.start, receive, send)
        else:
            await serve_exec(services.runtime, first.start, receive, send)

    def _awaits(self, task_id: str) -> bool:
        """Whether a task waits for who ran it; so does one that the host has yet to hear of."""
        task = next((task for task in self._services.view.tasks if task.meta.id == task_id), None)
        return task is None or task.spec.container.attached

    def _knows(self, task_id: str) -> bool:
        return any(task.meta.id == task_id for task in self._services.view.tasks)

    async def read_raft(self, _request: host.ReadRaftRequest, caller: Caller) -> host.RaftMember:
        require_node(caller)
        voter = self._services.voter
        return own_part(voter.member) if voter is not None else host.RaftMember(role="none")

    async def examine(self, _request: doctor.ExamineRequest, caller: Caller) -> doctor.ExamineReply:
        require_node(caller)
        return await self._services.doctor.examine()

    async def observe_path(self, request: doctor.ObservePathRequest, caller: Caller) -> doctor.PathObservation:
        require_node(caller)
        return await self._services.doctor.observe_path(request)

    async def read_policy_counts(
        self, _request: host.ReadPolicyCountsRequest, caller: Caller
    ) -> host.ReadPolicyCountsReply:
        require_node(caller)
        return await self._services.doctor.read_policy_counts()

    async def read_metrics(self, _request: doctor.ReadMetricsRequest, caller: Caller) -> doctor.ReadMetricsReply:
        require_node(caller)
        return self._services.doctor.read_metrics()

    async def read_space(self, request: host.ReadSpaceRequest, caller: Caller) -> host.HostSpace:
        require_node(caller)
        return await self._garbage().space(request.items)

    async def collect_garbage(self, request: host.CollectGarbageRequest, caller: Caller) -> host.CollectedGarbage:
        require_node(caller)
        return await self._garbage().collect(request)

    def _garbage(self) -> Collector:
        assert self._services.garbage is not None
        return self._services.garbage

    async def read_task_files(self, request: host.ReadTaskFilesRequest, caller: Caller) -> host.ReadTaskFilesReply:
        node_id = require_node(caller)
        voter = self._voter()
        identity = voter.identity
        return read_contents(voter.store, identity.cluster_id, identity.cluster_key, node_id, request.task_id)

    def _voter(self) -> VoterContext:
        if self._services.voter is None:
            raise Refused("this host takes no part in consensus and never leads", Kind.NOT_POSSIBLE)
        return self._services.voter


def _choice(request: host.ReadLogRequest) -> LogChoice:
    return LogChoice(request.tail_lines, request.since_unix_ms, request.until_unix_ms, _STREAMS[request.stream])
