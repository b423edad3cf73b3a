"""Traces a path: finds out what its ends are, asks the hosts concerned what they see, and judges (trace_plan.py)."""

from __future__ import annotations

import grpc
import trio

from daemon.api.asking import ask_each
from daemon.api.cluster_context import VoterContext
from daemon.doctor import isolation_plan
from daemon.doctor.consultation import why
from daemon.doctor.host_doctor import HostDoctor
from daemon.doctor.trace_ends_plan import (
    HOST,
    NAME,
    OUTSIDE,
    SERVICE,
    Source,
    Target,
    find_source,
    find_target,
    resolved,
)
from daemon.doctor.trace_plan import Evidence, trace
from daemon.errors import Refused
from net.model import Encryption
from net.wireguard_plan import device_port
from proto import doctor_pb2 as doctor
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from raft.store import Store

OBSERVE_S_MAX = 8.0
CONNECTS_MAX = 4


class Tracing:
    """On any voter, with or without a majority: by the state as this voter has it."""

    def __init__(self, context: VoterContext, own: HostDoctor) -> None:
        self._context = context
        self._own = own

    async def trace(self, request: doctor.TracePathRequest) -> doctor.TracePathReply:
        """Raises Refused where the source or the protocol makes no sense."""
        protocol = request.protocol or "tcp"
        if protocol not in ("tcp", "udp"):
            raise Refused(f"a path of protocol {protocol!r} cannot be traced: choose tcp or udp")
        if request.port > 65535:
            raise Refused(f"{request.port} is no port: 1 to 65535")
        store = self._context.store
        source = find_source(store, request.source)
        target = find_target(store, request.target, source, request.port, protocol)
        here: doctor.PathObservation | str = ""
        if target.kind == NAME:
            here = await self._observe(source.node, self._question(source, target))
            if not isinstance(here, str):
                target = resolved(store, target, here.name.addresses)
        policy = isolation_plan.decide(store, source, target)
        there: dict[str, doctor.PathObservation | str] = {}
        seen: list[doctor.PathObservation | str] = [here]
        async with trio.open_nursery() as nursery:
            if target.kind != NAME:
                nursery.start_soon(self._look_here, source, target, seen)
            questions = self._questions_there(store, source, target)
            await ask_each(questions, lambda question: self._look_there(*question, there))
        nodes = {node.meta.id: node for node in store.table(objects.Node)}
        ports = next((_tunnel_ports(cluster) for cluster in store.table(objects.Cluster)), "of the tunnel")
        return trace(Evidence(source, target, policy, seen[-1], there, nodes, ports))

    async def _look_here(self, source: Source, target: Target, seen: list[doctor.PathObservation | str]) -> None:
        seen.append(await self._observe(source.node, self._question(source, target)))

    async def _look_there(
        self, node: objects.Node, question: doctor.ObservePathRequest, there: dict[str, doctor.PathObservation | str]
    ) -> None:
        there[question.task_id or node.meta.id] = await self._observe(node, question)

    def _question(self, source: Source, target: Target) -> doctor.ObservePathRequest:
        """What the source's host is to look at."""
        question = doctor.ObservePathRequest(
            task_id=source.task.meta.id if source.task is not None else "",
            name=target.name,
            addresses=[target.over(task.address) for task in target.backends],
            node_ids=sorted({task.node_id for task in target.backends} - {source.node.meta.id}),
            protocol=target.protocol,
        )
        if target.kind == HOST and target.node is not None and target.node.meta.id != source.node.meta.id:
            question.node_ids.append(target.node.meta.id)
        if target.kind == OUTSIDE:
            question.addresses.extend(target.addresses)
        if target.kind == SERVICE and target.service is not None and target.service.vip:
            question.vips.append(target.service.vip)
        if target.port:
            # The service's address first, then its tasks one by one: their difference tells much.
            places = [*target.addresses, *(target.over(task.address) for task in target.backends)]
            for address in list(dict.fromkeys(places))[:CONNECTS_MAX]:
                question.connects.add(address=address, port=target.port)
        return question

    def _questions_there(
        self, store: Store, source: Source, target: Target
    ) -> list[tuple[objects.Node, doctor.ObservePathRequest]]:
        """What the hosts at the other end are to look at."""
        back = [source.node.meta.id]
        if target.kind == HOST and target.node is not None and target.node.meta.id != source.node.meta.id:
            address = target.over(source.node.network.tunnel_address)
            return [(target.node, doctor.ObservePathRequest(addresses=[address], node_ids=back))]
        found = []
        for task in target.backends:
            node = store.get(objects.Node, task.node_id)
            if node is not None:
                question = doctor.ObservePathRequest(
                    task_id=task.meta.id,
                    addresses=[target.over(source.address)] if node.meta.id != source.node.meta.id else [],
                    node_ids=[each for each in back if each != node.meta.id],
                    listen_port=target.port,
                    protocol=target.protocol,
                )
                found.append((node, question))
        return found

    async def _observe(self, node: objects.Node, question: doctor.ObservePathRequest) -> doctor.PathObservation | str:
        if node.meta.id == self._context.identity.node_id:
            return await self._own.observe_path(question)
        if node.state == objects.NODE_STATE_DOWN:
            return f"is down ({node.state_message or 'not heard of'})"
        stub = self._context.host(node)
        try:
            return await call(stub.ObservePath(question, timeout=OBSERVE_S_MAX))  # type: ignore[arg-type]
        except grpc.aio.AioRpcError as error:
            return why(node, error)


def _tunnel_ports(cluster: objects.Cluster) -> str:
    """The UDP ports that the overlay's packets use between hosts, in words."""
    state = cluster.encryption
    epochs = [epoch for epoch in state.receiving if epoch]
    default = Encryption()
    keys = Encryption(state.sending, tuple(state.receiving), cluster.network.wireguard_port or default.port)
    ports = [str(device_port(keys, epoch)) for epoch in sorted(epochs)]
    if not epochs or 0 in state.receiving:
        ports.append(str(cluster.network.vxlan_port))
    return " and ".join(ports)
