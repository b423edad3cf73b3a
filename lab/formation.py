"""Makes one cluster of a lab's hosts, by the API that `fairway init` and `fairway join` use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from lab.layout import UNDERLAY_CIDR, LabError
from proto import control_pb2, control_pb2_grpc, objects_pb2

VOTER_COUNT_MAX = 5
CALL_TIMEOUT_SECONDS = 30.0
DAEMON_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class FormedCluster:
    """What the first host answered; the key is the only copy of the first operator's."""

    cluster_id: str
    api_address: str
    operator_certificate_pem: bytes
    operator_private_key_pem: bytes
    ca_certificate_pem: bytes


@dataclass(frozen=True)
class Place:
    """A host that is to be a node: its fairwayd's socket and its address on the underlay."""

    host: str
    socket: Path
    address: str


def form(
    cluster: str, places: Sequence[Place], check: Callable[[], None], progress: Callable[[str], None]
) -> FormedCluster:
    """Makes the cluster on the first and has the others join; returns when all are ready.

    `check` raises LabError where a host has ended; `progress` takes a sentence after each step.
    """
    first, others = places[0], places[1:]
    for place in places:
        wait_for_daemon(place.socket, place.host, check)
    progress("fairwayd answers on every host")
    formed, voter_token, worker_token = initialise(first.socket, cluster, first.host, first.address)
    progress(f"{first.host} made the cluster")
    for position, place in enumerate(others, start=2):
        voter = position <= VOTER_COUNT_MAX
        join(place.socket, place.host, place.address, first.address, voter_token if voter else worker_token)
        progress(f"{place.host} joined{'' if voter else ' as a worker'}")
    wait_until_ready(first.socket, len(places))
    progress(f"all {len(places)} hosts are ready" if others else "it is ready")
    return formed


def wait_for_daemon(socket: Path, host: str, check: Callable[[], None]) -> control_pb2.LocalStatusReply:
    """Waits until the host's fairwayd answers on its socket; `check` raises where there is no point."""
    deadline = time.monotonic() + DAEMON_TIMEOUT_SECONDS
    words = "its socket does not exist"
    while time.monotonic() < deadline:
        check()
        if socket.exists():
            try:
                with grpc.insecure_channel(f"unix:{socket}") as channel:
                    return control_pb2_grpc.LocalStub(channel).Status(control_pb2.LocalStatusRequest(), timeout=2.0)
            except grpc.RpcError as error:
                words = _words(error)
        time.sleep(_POLL_SECONDS)
    raise LabError(f"fairwayd on {host} did not answer within {DAEMON_TIMEOUT_SECONDS:.0f} s: {words}")


def initialise(socket: Path, cluster: str, host: str, address: str) -> tuple[FormedCluster, str, str]:
    """`fairway init` on the first host; also the tokens for voters and for workers."""
    request = control_pb2.InitialiseRequest(
        cluster_name=cluster,
        node_name=host,
        address=address,
        network=objects_pb2.NetworkSettings(trusted_cidrs=[UNDERLAY_CIDR]),
    )
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            reply = control_pb2_grpc.LocalStub(channel).Initialise(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise LabError(f"the cluster could not be made on {host}: {_words(error)}") from error
    formed = FormedCluster(
        reply.cluster_id,
        reply.address,
        reply.operator_certificate_pem,
        reply.operator_private_key_pem,
        reply.ca_certificate_pem,
    )
    return formed, reply.voter_token, reply.worker_token


def join(socket: Path, host: str, address: str, first_address: str, token: str) -> None:
    """`fairway join` on another host. One that is refused for want of a majority is tried again."""
    request = control_pb2.JoinClusterRequest(
        address=first_address, token=token, node_name=host, advertise_address=address
    )
    deadline = time.monotonic() + CALL_TIMEOUT_SECONDS
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        while True:
            try:
                control_pb2_grpc.LocalStub(channel).Join(request, timeout=CALL_TIMEOUT_SECONDS)
                return
            except grpc.RpcError as error:
                if _code(error) != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise LabError(f"{host} could not join: {_words(error)}") from error
            time.sleep(_POLL_SECONDS)


def wait_until_ready(socket: Path, host_count: int, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
    """Waits until the cluster calls `host_count` nodes ready; LabError says what it said last."""
    deadline = time.monotonic() + timeout_seconds
    words = "nothing was heard"
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        while time.monotonic() < deadline:
            try:
                reply = control_pb2_grpc.ControlStub(channel).ListNodes(control_pb2.ListNodesRequest(), timeout=2.0)
            except grpc.RpcError as error:
                words = _words(error)
            else:
                nodes = [view.node for view in reply.nodes]
                if sum(node.state == objects_pb2.NODE_STATE_READY for node in nodes) >= host_count:
                    return
                words = ", ".join(
                    f"{node.meta.name}: {objects_pb2.NodeState.Name(node.state)} {node.state_message}".strip()
                    for node in nodes
                )
            time.sleep(_POLL_SECONDS)
    raise LabError(f"{host_count} hosts were not ready within {timeout_seconds:.0f} s; the cluster says: {words}")


def _words(error: grpc.RpcError) -> str:
    # What a call raises is also a grpc.Call, which the stubs cannot say.
    details = getattr(error, "details", None)
    return (details() if callable(details) else "") or str(error)


def _code(error: grpc.RpcError) -> object:
    code = getattr(error, "code", None)
    return code() if callable(code) else None
