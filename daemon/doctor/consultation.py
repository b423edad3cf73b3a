"""Asks every host how it is, at once and in bounded time, and judges it together (cluster_findings_plan.py)."""

from __future__ import annotations

import time

import grpc
import trio

from daemon.api.asking import ask_each
from daemon.api.caller import LOCAL_ROOT
from daemon.api.cluster_context import VoterContext
from daemon.api.control_raft import ControlRaft
from daemon.doctor.cluster_findings_plan import CHECKS, Answer, ClusterFacts, cluster_findings, in_order
from daemon.doctor.host_doctor import HostDoctor
from daemon.doctor.host_findings_plan import CHECKS as HOST_CHECKS
from daemon.doctor.host_findings_plan import note
from daemon.identity.certificates import load_certificate, validity_unix_ms
from daemon.peers import target
from proto import control_pb2 as control
from proto import doctor_pb2 as doctor
from proto import objects_pb2 as objects
from proto.grpc_trio import call

HOST_S_MAX = 5.0


class Consultation:
    """On any voter, with or without a majority."""

    def __init__(self, context: VoterContext, own: HostDoctor) -> None:
        self._context = context
        self._own = own

    async def ask(self) -> doctor.DoctorReply:
        context, store = self._context, self._context.store
        nodes = sorted(store.table(objects.Node), key=lambda node: node.meta.name)
        own_id = context.identity.node_id
        answers: dict[str, Answer | str] = {}
        raft = control.RaftStatusReply()

        async def ask_raft() -> None:
            raft.CopyFrom(await ControlRaft(context).raft_status(control.RaftStatusRequest(), LOCAL_ROOT))

        async def ask_self() -> None:
            answers[own_id] = Answer(await self._own.examine())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_raft)
            nursery.start_soon(ask_self)
            others = [node for node in nodes if node.meta.id != own_id and node.state != objects.NODE_STATE_DOWN]
            await ask_each(others, lambda node: self._ask_host(node, answers))
        facts = ClusterFacts(
            nodes,
            answers,
            raft,
            list(store.table(objects.Service)),
            list(store.table(objects.Task)),
            time.time_ns() // 1_000_000,
            self._ca_left_ms(),
            {
                lease.meta.name.partition("/")[2]
                for lease in store.table(objects.Lease)
                if lease.kind == objects.Lease.KIND_FLOATING_ADDRESS and lease.holder_id
            },
        )
        return doctor.DoctorReply(
            findings=cluster_findings(facts),
            hosts_asked=[node.meta.name for node in nodes if node.meta.id in answers],
            hosts_answered=[node.meta.name for node in nodes if isinstance(answers.get(node.meta.id), Answer)],
            checks=[*CHECKS, *HOST_CHECKS],
            asked=next((node.meta.name for node in nodes if node.meta.id == own_id), own_id),
        )

    async def _ask_host(self, node: objects.Node, answers: dict[str, Answer | str]) -> None:
        stub = self._context.host(node)
        began = time.time()
        try:
            reply: doctor.ExamineReply = await call(
                stub.Examine(doctor.ExamineRequest(), timeout=HOST_S_MAX)  # type: ignore[arg-type]
            )
        except grpc.aio.AioRpcError as error:
            answers[node.meta.id] = why(node, error)
            return
        ended = time.time()
        # Its clock was read at the end of its examination, somewhere before its answer arrived.
        answers[node.meta.id] = Answer(reply, reply.clock_unix_ms - ended * 1000, min(250.0, (ended - began) * 500))

    def _ca_left_ms(self) -> int | None:
        for cluster in self._context.store.table(objects.Cluster):
            expires = validity_unix_ms(load_certificate(cluster.ca_certificate_pem))[1]
            return expires - time.time_ns() // 1_000_000
        return None


def why(node: objects.Node, error: grpc.aio.AioRpcError) -> str:
    """Why a host did not answer, to be put behind its name."""
    if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
        return f"does not answer at {target(node.address, node.api_port)}"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "runs a fairwayd that cannot be asked this; is it of an older version?"
    return f"answers: {error.details() or error.code().name.lower()}"


def alone(reply: doctor.ExamineReply, name: str, *, member: bool) -> doctor.DoctorReply:
    """What one host says of itself, where nobody else can be asked."""
    found = [doctor.Finding(where=name)]
    found[0].MergeFrom(
        note(
            "hosts",
            "this host is a worker: only it was looked at"
            if member
            else "this host belongs to no cluster: only the machine was looked at",
            "run `fairway doctor` on a voter, or with an operator's context, for the whole cluster"
            if member
            else "`fairway init` makes a cluster, `fairway join` enters one",
        )
    )
    for finding in reply.findings:
        found.append(doctor.Finding(where=name))
        found[-1].MergeFrom(finding)
    return doctor.DoctorReply(
        findings=in_order(found), hosts_asked=[name], hosts_answered=[name], checks=reply.checks, asked=name
    )
