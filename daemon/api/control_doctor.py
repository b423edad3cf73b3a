"""The control API's methods that say how the cluster is: answered by any voter, with or without a majority."""

from __future__ import annotations

import grpc

from daemon import lookup
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.doctor.consultation import HOST_S_MAX, Consultation, why
from daemon.doctor.host_doctor import HostDoctor
from daemon.doctor.tracing import Tracing
from daemon.errors import Kind, Refused
from proto import doctor_pb2 as messages
from proto.grpc_trio import call


class ControlDoctor:
    """Runs on any voter."""

    def __init__(self, context: VoterContext, own: HostDoctor) -> None:
        self._context = context
        self._own = own

    async def doctor(self, _request: messages.DoctorRequest, _caller: Caller) -> messages.DoctorReply:
        return await Consultation(self._context, self._own).ask()

    async def trace_path(self, request: messages.TracePathRequest, _caller: Caller) -> messages.TracePathReply:
        return await Tracing(self._context, self._own).trace(request)

    async def read_metrics(self, request: messages.ReadMetricsRequest, _caller: Caller) -> messages.ReadMetricsReply:
        if not request.node:
            return self._own.read_metrics()
        node = lookup.find_node(self._context.store, request.node)
        if node.meta.id == self._context.identity.node_id:
            return self._own.read_metrics()
        stub = self._context.peers.host(node.meta.id, node.address, node.api_port)
        try:
            return await call(stub.ReadMetrics(messages.ReadMetricsRequest(), timeout=HOST_S_MAX))  # type: ignore[arg-type]
        except grpc.aio.AioRpcError as error:
            raise Refused(
                f"read the metrics of {node.meta.name}: the host {why(node, error)}", Kind.UNAVAILABLE
            ) from error
