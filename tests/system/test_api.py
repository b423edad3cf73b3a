"""What any gRPC tool finds on a daemon: health and reflection; nothing without a certificate of the cluster."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.system.cluster import Cluster

CALL_SECONDS_MAX = 30.0
ASK_WITHOUT_CERTIFICATE = """
import grpc, ssl, sys
from grpc_health.v1 import health_pb2, health_pb2_grpc
address = sys.argv[1]
ca = ssl.get_server_certificate((address, 7443)).encode()
credentials = grpc.ssl_channel_credentials(ca)
options = (("grpc.ssl_target_name_override", "api.fairway"),)
with grpc.secure_channel(f"{address}:7443", credentials, options) as channel:
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        print("answered")
    except grpc.RpcError as error:
        print("refused", error.code().name)
"""


def test_health_and_reflection_are_served_on_the_socket(cluster: Cluster) -> None:
    with grpc.insecure_channel(f"unix:{cluster.lab.socket('host-1')}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "fairway.v1.Control", "fairway.v1.Local"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS_MAX)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        (listing,) = reflection.ServerReflectionInfo(iter([ask]), timeout=CALL_SECONDS_MAX)
        names = {service.name for service in listing.list_services_response.service}
        assert {"fairway.v1.Control", "fairway.v1.Local", "grpc.health.v1.Health"} <= names


def test_the_port_answers_nobody_without_a_certificate(cluster: Cluster) -> None:
    address = cluster.lab.address("host-1")
    done = cluster.lab.run_in("host-2", [sys.executable, "-c", ASK_WITHOUT_CERTIFICATE, address])
    assert done.stdout.strip() == "refused UNAVAILABLE"
