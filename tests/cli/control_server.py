"""A gRPC server in this process that gives the client under test the replies that a test scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from proto import control_pb2_grpc

# What a test scripts: (request or iterator of requests, context) -> reply or iterator of replies.
Handler = Callable[[Any, grpc.ServicerContext], Any]


class ControlServer:
    """Serves Control and Local on a Unix socket, and on `port` of loopback where `tls` is given.

    A method without a script answers UNIMPLEMENTED."""

    def __init__(self, socket: Path, tls: grpc.ServerCredentials | None = None) -> None:
        self.socket = socket
        self.handlers: dict[str, Handler] = {}
        self.requests: list[tuple[str, Any]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        control_pb2_grpc.add_ControlServicer_to_server(self._servicer(control_pb2_grpc.ControlServicer), self._server)
        control_pb2_grpc.add_LocalServicer_to_server(self._servicer(control_pb2_grpc.LocalServicer), self._server)
        self._server.add_insecure_port(f"unix:{socket}")
        self.port = self._server.add_secure_port("127.0.0.1:0", tls) if tls else 0
        self._server.start()

    def on(self, method: str, reply: Any) -> None:
        """Scripts a method: a handler, or the reply itself."""
        self.handlers[method] = reply if callable(reply) else lambda request, context: reply

    def refuse(self, method: str, code: grpc.StatusCode, message: str) -> None:
        def handler(request: Any, context: grpc.ServicerContext) -> Any:
            context.abort(code, message)

        self.handlers[method] = handler

    def asked(self, method: str) -> list[Any]:
        """The requests of `method` so far."""
        return [request for name, request in self.requests if name == method]

    def stop(self) -> None:
        self._server.stop(grace=None).wait(timeout=5)

    def _servicer(self, base: type) -> Any:
        server = self

        def method(name: str) -> Callable[..., Any]:
            def unary(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
                server.requests.append((name, request))
                if name not in server.handlers:
                    context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no script for {name}")
                return server.handlers[name](request, context)

            return unary

        names = [name for name in vars(base) if not name.startswith("_")]
        return type("Scripted", (base,), {name: method(name) for name in names})()


def stream_of(*replies: Any) -> Handler:
    """A streaming reply that ends after `replies`."""

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from replies

    return handler
