"""Writes through the public gRPC API of a lab of three hosts: deploys of apps with many services.

A deploy is one call and one transaction; what it writes is its services, each with a value of 200 bytes in its
environment, and the app. Replicas are 0, so that nothing but the cluster's state changes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc

from bench.raft.load import VALUE_BYTES, Load, Measurement
from lab.cluster import Lab
from lab.layout import LabError
from proto import control_pb2 as control
from proto import control_pb2_grpc as control_grpc
from proto import objects_pb2 as objects

SERVICES = 50
CALL_SECONDS_MAX = 30.0


class GrpcSide:
    """A lab whose leader is asked over its Unix socket; leaving the `with` block removes it."""

    def __init__(self) -> None:
        self._lab: Lab | None = None

    def __enter__(self) -> GrpcSide:
        self._lab = Lab.make(f"bench-{secrets.token_hex(3)}", 3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lab is not None:
            self._lab.down()

    def write(self, clients: int, seconds: float) -> Load:
        """Each client deploys its app again and again; what counts is objects written."""
        return asyncio.run(self._write(clients, seconds, SERVICES))

    def write_singly(self, clients: int, seconds: float) -> Load:
        """Each client changes a label of a host again and again: one call, one object."""
        return asyncio.run(self._write(clients, seconds, 0))

    async def _write(self, clients: int, seconds: float, services: int) -> Load:
        measurement = Measurement(seconds, operations_each=services + 1)
        async with grpc.aio.insecure_channel(f"unix:{self._leader_socket()}") as channel:
            stub: Any = control_grpc.ControlStub(channel)
            ask: Callable[[int, int], Awaitable[Any]] = _deploy(stub, services) if services else _label(stub)

            async def client(number: int) -> None:
                count = 0
                while measurement.goes_on():
                    began = asyncio.get_running_loop().time()
                    await ask(number, count)
                    count += 1
                    measurement.took(asyncio.get_running_loop().time() - began)

            await asyncio.gather(*(client(number) for number in range(clients)))
        return Load(**measurement.result())

    def _leader_socket(self) -> str:
        assert self._lab is not None
        with grpc.insecure_channel(f"unix:{self._lab.socket('host-1')}") as channel:
            reply = control_grpc.ControlStub(channel).GetCluster(control.GetClusterRequest(), timeout=CALL_SECONDS_MAX)
        names = {node.meta.id: node.meta.name for node in reply.nodes}
        if reply.leader_id not in names:
            raise LabError("no host of the lab leads")
        return str(self._lab.socket(names[reply.leader_id]))


def _deploy(stub: Any, services: int) -> Callable[[int, int], Awaitable[Any]]:
    half = "x" * (VALUE_BYTES - 16)

    async def ask(number: int, count: int) -> None:
        app = control.AppSpec(name=f"bench-{number}", tenant="default")
        for position in range(services):
            spec = objects.ServiceSpec(replicas=0)
            spec.container.image = "bench:1"
            spec.container.environment["VALUE"] = f"{count:08}{position:08}{half}"
            app.services[f"s{position}"].CopyFrom(spec)
        await stub.DeployApp(control.DeployAppRequest(app=app), timeout=CALL_SECONDS_MAX)

    return ask


def _label(stub: Any) -> Callable[[int, int], Awaitable[Any]]:
    async def ask(number: int, count: int) -> None:
        request = control.UpdateNodeRequest(node="host-1")
        request.set_labels[f"bench-{number}"] = str(count)
        await stub.UpdateNode(request, timeout=CALL_SECONDS_MAX)

    return ask
