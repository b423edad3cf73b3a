"""Which cluster a command speaks to, and calls to it whose failures are sentences."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from cli import contexts
from cli.failure import EXIT_FAILED, EXIT_TIMED_OUT, EXIT_UNREACHABLE, CommandFailed
from proto import control_pb2_grpc

T = TypeVar("T")

SOCKET_DEFAULT = "/run/fairway/fairwayd.sock"
CONNECT_SECONDS_MAX = 3.0
CALL_SECONDS_MAX = 30.0
MESSAGE_BYTES_MAX = 64 << 20
API_PORT_DEFAULT = 7443
# The servers' certificates name node ids; this name is in every one of them.
API_NAME = "api.fairway"


@dataclass(frozen=True)
class Target:
    """Where to connect: a Unix socket, or addresses with the PEM files of a context."""

    socket: str = ""
    addresses: list[str] = field(default_factory=list)
    pem: dict[str, bytes] = field(default_factory=dict)
    context: str = ""

    @property
    def places(self) -> list[str]:
        return [self.socket] if self.socket else self.addresses


def choose_target(context: str | None, socket_path: str | None, environment: Mapping[str, str]) -> Target:
    """Flags, then the environment, then the current context, then the host's own socket."""
    if socket_path:
        return Target(socket=socket_path)
    if not context:
        if given := environment.get("FAIRWAY_SOCKET"):
            return Target(socket=given)
        context = environment.get("FAIRWAY_CONTEXT")
    known = contexts.read(contexts.folder_of(environment))
    name = context or known.current
    if not name:
        return Target(socket=SOCKET_DEFAULT)
    chosen = known.find(name)
    return Target(addresses=chosen.addresses, pem=contexts.read_pem(known, chosen), context=name)


def connect(options: argparse.Namespace) -> Cluster:
    """The cluster that a command's options, or else the environment, choose."""
    return Cluster(choose_target(options.context, options.socket, os.environ))


def connect_local(options: argparse.Namespace) -> Cluster:
    """The daemon of this host, whatever the current context is: for what concerns the host itself."""
    path = options.socket or os.environ.get("FAIRWAY_SOCKET") or SOCKET_DEFAULT
    return Cluster(Target(socket=path))


class Cluster:
    """A connection that is made when first needed, to the first place that answers."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._next = 0
        self._channel: grpc.Channel | None = None

    @property
    def is_local(self) -> bool:
        """Whether this is a host's own socket, which serves Local too."""
        return bool(self._target.socket)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, asked: str, invoke: Callable[[control_pb2_grpc.ControlStub], T], *, repeatable: bool = False) -> T:
        """One call of Control. `asked` begins the message of a failure. With `repeatable`, the other
        addresses are tried where one is unavailable: only for what changes nothing the second time."""
        return self._attempt(asked, lambda channel: invoke(control_pb2_grpc.ControlStub(channel)), repeatable)

    def local(self, asked: str, invoke: Callable[[control_pb2_grpc.LocalStub], T]) -> T:
        """One call of Local, which only a host's own socket serves."""
        return self._attempt(asked, lambda channel: invoke(control_pb2_grpc.LocalStub(channel)), False)

    def stream(
        self, asked: str, invoke: Callable[[control_pb2_grpc.ControlStub], Iterator[T]]
    ) -> Generator[T, None, None]:
        """The replies of a streaming call; the call is cancelled when the iterator is closed."""
        replies: Iterator[T] | None = None
        try:
            replies = invoke(control_pb2_grpc.ControlStub(self._connect(asked)))
            yield from replies
        except grpc.RpcError as error:
            raise explain(asked, error) from error
        finally:
            if isinstance(replies, grpc.RpcContext):
                replies.cancel()

    def reconnect(self) -> None:
        """The next call connects anew, to the next address."""
        self.close()
        self._next += 1

    def _attempt(self, asked: str, invoke: Callable[[grpc.Channel], T], repeatable: bool) -> T:
        attempts = len(self._target.places) if repeatable else 1
        for attempt in range(attempts):
            try:
                return invoke(self._connect(asked))
            except grpc.RpcError as error:
                failure = explain(asked, error)
                if failure.exit_code != EXIT_UNREACHABLE or attempt == attempts - 1:
                    raise failure from error
                self.reconnect()
        raise AssertionError("every attempt returns or raises")

    def _connect(self, asked: str) -> grpc.Channel:
        if self._channel is not None:
            return self._channel
        reasons = []
        places = self._target.places
        for offset in range(len(places)):
            place = places[(self._next + offset) % len(places)]
            try:
                _probe(place)
            except OSError as error:
                reasons.append(_why(place, error))
                continue
            self._next = (self._next + offset) % len(places)
            self._channel = _open(self._target, place)
            return self._channel
        raise CommandFailed(asked, "; ".join(reasons) or "the context has no address", EXIT_UNREACHABLE)


def host_port(address: str) -> tuple[str, int]:
    """ "host", "host:port" or "[v6]:port"."""
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return address.strip("[]"), API_PORT_DEFAULT
    if not port.isdigit():
        raise CommandFailed(f"connect to {address}", "this is not host:port")
    return host.strip("[]"), int(port)


def _probe(place: str) -> None:
    """Connects and hangs up: an operating system error says more than gRPC does, and at once."""
    if place.startswith("/"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
            unix.settimeout(CONNECT_SECONDS_MAX)
            unix.connect(place)
        return
    with socket.create_connection(host_port(place), timeout=CONNECT_SECONDS_MAX):
        pass


def _why(place: str, error: OSError) -> str:
    if not place.startswith("/"):
        return f"{place} does not answer ({error.strerror or error})"
    if isinstance(error, PermissionError):
        return f"you may not use {place}; run as root, or choose a context (fairway context ls)"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no fairwayd listens on {place}; start it (systemctl start fairwayd), "
            "or choose a cluster with --context, --socket or 'fairway context use'"
        )
    return f"{place}: {error.strerror or error}"


def _open(target: Target, place: str) -> grpc.Channel:
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),
        # A gRPC server hangs up on clients that ping an idle stream more often than every five minutes.
        ("grpc.keepalive_time_ms", 310_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if place.startswith("/"):
        # Without a plain authority some servers refuse the percent-encoded path.
        return grpc.insecure_channel(f"unix:{place}", [*options, ("grpc.default_authority", "localhost")])
    credentials = grpc.ssl_channel_credentials(
        root_certificates=target.pem["ca"],
        private_key=target.pem["key"],
        certificate_chain=target.pem["certificate"],
    )
    host, port = host_port(place)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", API_NAME)])


def _is_refused_by_tls(words: str) -> bool:
    """By TLS 1.3 (RFC 8446, 2 and 4.4.2) a client has finished before its certificate is looked at: a server that
    does not want it just hangs up. That something listens there was seen before (`_probe`)."""
    hung_up = "failed to connect" in words and ("socket closed" in words or "connection reset" in words)
    return "handshak" in words or "certificate" in words or (hung_up and "unix:" not in words)


def explain(asked: str, error: grpc.RpcError) -> CommandFailed:
    """The sentence and the exit code of a failed call."""
    status: Any = error  # grpcio's errors are calls as well, which its types do not say
    if not hasattr(error, "code"):
        return CommandFailed(asked, str(error) or "the call failed")
    code, details = status.code(), status.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE:
        if _is_refused_by_tls(details.lower()):
            details = (
                "the host answers, but does not accept this context's certificate, or belongs to another "
                f"cluster ({details.rsplit('last error: ', 1)[-1]})"
            )
        return CommandFailed(asked, details or "the cluster does not answer", EXIT_UNREACHABLE)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandFailed(asked, "no answer in time; see 'fairway status'", EXIT_TIMED_OUT)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return CommandFailed(asked, "this host's fairwayd does not know the request; is it of another version?")
    return CommandFailed(asked, details or code.name.lower().replace("_", " "), EXIT_FAILED)
