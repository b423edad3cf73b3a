"""One call of grpc.health.v1.Health/Check over a connection that somebody else has made, by h2.

grpcio makes its connections itself, in its own threads and so in the daemon's network namespace. Sources:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and doc/health-checking.md there.
"""

from __future__ import annotations

from urllib.parse import unquote

import grpc
import trio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

ANSWER_BYTES_MAX = 64 << 10
_READ_BYTES = 16 << 10
_PREFIX_BYTES = 5  # compressed or not, length
_METHOD = "/grpc.health.v1.Health/Check"
_STATUSES = {status.value[0]: status.name for status in grpc.StatusCode}


async def check(stream: trio.abc.Stream, authority: str, service: str, tls: bool) -> str:
    """What is wrong, in words; empty where the service is SERVING. Raises trio.BrokenResourceError where the
    connection breaks."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    number = connection.get_next_available_stream_id()
    headers = [
        (":method", "POST"),
        (":scheme", "https" if tls else "http"),
        (":authority", authority),
        (":path", _METHOD),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "fairway"),
    ]
    message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    connection.send_headers(number, headers)
    connection.send_data(number, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    answer = _Answer()
    try:
        while not answer.ended:
            await stream.send_all(connection.data_to_send())
            data = await stream.receive_some(_READ_BYTES)
            if not data:
                return "the connection was closed without an answer"
            if data.startswith(b"HTTP/1"):
                return "the answer is not gRPC but HTTP/1"
            for event in connection.receive_data(data):
                answer.take(connection, event)
    except ProtocolError as error:
        return f"the answer is not gRPC: {error}"
    return answer.problem()


class _Answer:
    def __init__(self) -> None:
        self.ended = False
        self._body = b""
        self._said: dict[str, str] = {}
        self._broken = ""

    def take(self, connection: H2Connection, event: Event) -> None:
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            self._said.update({str(name): str(value) for name, value in event.headers or ()})
        elif isinstance(event, DataReceived):
            self._body += event.data or b""
            connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            if len(self._body) > ANSWER_BYTES_MAX:
                self._end(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            self._end(f"the call was broken off (HTTP/2 error {event.error_code})")

    def _end(self, broken: str) -> None:
        self.ended, self._broken = True, self._broken or broken

    def problem(self) -> str:
        if self._broken:
            return self._broken
        status = self._said.get("grpc-status", "")
        if not status:
            return f"the answer is not gRPC (HTTP {self._said.get(':status', 'without a status')})"
        if status != "0":
            name = _STATUSES.get(int(status), status) if status.isdigit() else status
            words = unquote(self._said.get("grpc-message", ""))[:200]
            return f"{name}: {words}" if words else name
        try:
            answer = health_pb2.HealthCheckResponse.FromString(self._body[_PREFIX_BYTES:])
        except DecodeError:
            return "the answer is not that of grpc.health.v1.Health"
        serving = health_pb2.HealthCheckResponse.SERVING
        return "" if answer.status == serving else f"it says {_status_name(answer.status)}"


def _status_name(number: int) -> str:
    known = health_pb2.HealthCheckResponse.ServingStatus
    return str(known.Name(number)) if number in known.values() else str(number)
