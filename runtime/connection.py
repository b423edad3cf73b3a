"""The one connection to containerd: calls by method path, supervision, and reconnection after its restart.

Methods are named as in "tasks.v1.Tasks/Start". Every failure is one of runtime/errors.py.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import trio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc import aio

from proto import containerd_pb2 as api
from proto.grpc_trio import call
from runtime import errors

log = logging.getLogger(__name__)

Reply = TypeVar("Reply", bound=Message)

CALL_TIMEOUT_MS = 30_000
CONNECT_WAIT_MS = 5_000  # how long a call waits for a connection that is being made
MESSAGE_SIZE_BYTES_MAX = 16 * 1024 * 1024
RECONNECT_WAIT_MS_MIN = 50
RECONNECT_WAIT_MS_MAX = 2_000
WATCH_INTERVAL_MS = 1_000
ANSWER_MS_MAX = 2_000  # of a call that does no work
UNANSWERED_MAX = 2  # such calls in a row, until containerd counts as one that hangs
STREAM_WAIT_MS_MAX = 120_000  # for one message; the last of what is written waits for the disk
SUBSCRIBE_WAIT_MS = 10_000
HELLO_INTERVAL_MS = 30
HELLO_TOPIC = "/fairway/hello"
LEASE_LIFE_S = 6 * 3600
LEASE_PREFIX = "fairway-"

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel must not inherit an old one's back-off
]


class Connection:
    """`healthy`, `error` (why not) and `version` (containerd's) are for reporting."""

    def __init__(self, socket: Path, namespace: str) -> None:
        self._socket = socket
        self._namespace = namespace
        self._metadata = (("containerd-namespace", namespace),)
        self._channel: aio.Channel | None = None
        self._methods: dict[tuple[str, str], Any] = {}
        self._ready = trio.Event()
        self._changed = trio.Event()
        self.leases: set[str] = set()  # whose blocks run
        self.healthy = False
        self.error = "not connected yet"
        self.version = ""

    async def run(self, on_event: Callable[[api.Envelope], None], on_connected: Callable[[], None]) -> None:
        """Keeps connected until cancelled. `on_connected` is called each time that the stream of
        events is known to flow: everything from then on is an event, everything before must be listed; and when
        a containerd that hung answers again."""
        wait_ms = RECONNECT_WAIT_MS_MIN
        while True:
            connected = False
            try:
                async with (
                    self._channel_open(),
                    trio.open_nursery() as nursery,
                    aclosing(self._subscription()) as envelopes,
                ):
                    async for envelope in envelopes:
                        if not connected:
                            connected = True
                            on_connected()
                            nursery.start_soon(self._watch, on_connected)
                        if envelope.topic != HELLO_TOPIC:
                            on_event(envelope)
            except* (errors.RuntimeFailure, OSError) as group:
                self._lost(str(group.exceptions[0]))
            wait_ms = RECONNECT_WAIT_MS_MIN if connected else min(wait_ms * 2, RECONNECT_WAIT_MS_MAX)
            await trio.sleep(wait_ms / 1000)

    async def unary(
        self,
        method: str,
        request: Message,
        reply_type: type[Reply],
        *,
        lease: str = "",
        timeout_ms: int | None = CALL_TIMEOUT_MS,
    ) -> Reply:
        """One request, one reply; raises RuntimeFailure. `timeout_ms` None: as long as it takes."""
        await self._wait_ready()
        metadata = self._metadata + ((("containerd-lease", lease),) if lease else ())
        seconds = None if timeout_ms is None else timeout_ms / 1000
        invoke = self._method("unary_unary", method, reply_type)
        with _failures(method):
            reply: Reply = await call(invoke(request, metadata=metadata, timeout=seconds))
        return reply

    async def do(self, method: str, request: Message, *, lease: str = "") -> None:
        """A call whose reply nobody reads."""
        await self.unary(method, request, Empty, lease=lease)

    async def read(self, method: str, request: Message, reply_type: type[Reply]) -> AsyncGenerator[Reply, None]:
        """One request, many replies; the call is cancelled when the iterator is closed."""
        await self._wait_ready()
        stream = self._method("unary_stream", method, reply_type)(request, metadata=self._metadata)
        try:
            while True:
                with _failures(method), _limit(method):
                    reply = await call(stream.read())
                if reply is aio.EOF:
                    return
                yield reply
        finally:
            stream.cancel()

    @asynccontextmanager
    async def exchange(
        self, method: str, reply_type: type[Reply], *, lease: str = ""
    ) -> AsyncIterator[Callable[[Message], Awaitable[Reply]]]:
        """A stream in lockstep: gives a function that sends a message and returns the reply to it."""
        await self._wait_ready()
        metadata = self._metadata + ((("containerd-lease", lease),) if lease else ())
        stream = self._method("stream_stream", method, reply_type)(metadata=metadata)

        async def send(request: Message) -> Reply:
            with _failures(method), _limit(method):
                try:
                    await call(stream.write(request))
                except aio.AioRpcError:
                    raise
                except Exception as error:  # the stream ended: its status says why
                    status = await call(stream.code())
                    details = await call(stream.details())
                    raise errors.from_status(method, status, str(details or error)) from None
                reply = await call(stream.read())
                if reply is aio.EOF:
                    status = await call(stream.code())
                    raise errors.from_status(method, status, "the stream ended early")
            answer: Reply = reply
            return answer

        try:
            yield send
        finally:
            stream.cancel()

    @asynccontextmanager
    async def lease(self, keep_on: type[errors.RuntimeFailure] | None = None) -> AsyncIterator[str]:
        """Protects what is written under it from garbage collection until the end of the block; what
        nothing refers to by then is collected at once. Expires by itself should the daemon die, and where the block
        ends with a failure of `keep_on`."""
        identity = f"{LEASE_PREFIX}{random.getrandbits(64):016x}"
        labels = {"containerd.io/gc.expire": _in_rfc3339(LEASE_LIFE_S)}
        kept = False
        self.leases.add(identity)
        try:
            await self.do("leases.v1.Leases/Create", api.CreateLeaseRequest(id=identity, labels=labels))
            yield identity
        except errors.RuntimeFailure as error:
            kept = keep_on is not None and isinstance(error, keep_on)
            raise
        finally:
            self.leases.discard(identity)
            if not kept:
                with trio.move_on_after(CALL_TIMEOUT_MS / 1000, shield=True):
                    await self._end_lease(identity)

    async def _end_lease(self, identity: str) -> None:
        try:
            await self.do("leases.v1.Leases/Delete", api.DeleteLeaseRequest(id=identity, sync=True))
        except errors.RuntimeFailure as error:
            log.warning("lease %s stays until it expires: %s", identity, error)

    async def answers(self) -> bool:
        """Whether containerd answers now: where a process was not made in time, whether that is the task's fault."""
        return self.healthy and await self._answers() is True

    async def wait_changed(self) -> None:
        """Returns when `healthy` has changed."""
        await self._changed.wait()

    async def wait_healthy(self) -> None:
        """Returns once containerd answers; waits without limit."""
        while not self.healthy:
            await self._ready.wait()
            if not self.healthy:
                await trio.sleep(RECONNECT_WAIT_MS_MIN / 1000)

    async def _wait_ready(self) -> None:
        if self.healthy:
            return
        with trio.move_on_after(CONNECT_WAIT_MS / 1000):
            await self.wait_healthy()
        if not self.healthy:
            raise errors.Unavailable(f"containerd at {self._socket} does not answer: {self.error}")

    def _method(self, kind: str, method: str, reply_type: type[Message]) -> Any:
        if self._channel is None:
            raise errors.Unavailable(f"containerd at {self._socket} does not answer: {self.error}")
        key = (kind, method)
        found = self._methods.get(key)
        if found is None:
            found = getattr(self._channel, kind)(
                f"/containerd.services.{method}",
                request_serializer=_serialise,
                response_deserializer=reply_type.FromString,
            )
            self._methods[key] = found
        return found

    @asynccontextmanager
    async def _channel_open(self) -> AsyncIterator[None]:
        # A channel that connects before the socket listens backs off for a second: probe first.
        if len(os.fsencode(self._socket)) > 107:
            raise errors.RuntimeFailure(f"the socket path {self._socket} is longer than 107 bytes")
        (await trio.open_unix_socket(self._socket)).socket.close()
        self._channel = aio.insecure_channel(f"unix:{self._socket}", options=_CHANNEL_OPTIONS)
        self._methods = {}
        try:
            yield
        finally:
            self._note(healthy=False)
            channel, self._channel = self._channel, None
            with trio.CancelScope(shield=True):
                await call(channel.close())

    async def _subscription(self) -> AsyncGenerator[api.Envelope, None]:
        """Events, the first of which is our own greeting: once it came back nothing is missed."""
        metadata = self._metadata
        version = self._method("unary_unary", "version.v1.Version/Version", api.VersionResponse)
        with _failures("version.v1.Version/Version"):
            self.version = (await call(version(Empty(), metadata=metadata, timeout=5))).version
        await self._make_namespace()
        filters = [
            f'namespace=={self._namespace},topic~="^/tasks/(exit|oom)$"',
            f'namespace=={self._namespace},topic=="{HELLO_TOPIC}"',
        ]
        subscribe = self._method("unary_stream", "events.v1.Events/Subscribe", api.Envelope)
        stream = subscribe(api.SubscribeRequest(filters=filters), metadata=metadata)
        try:
            first = await self._greeted(stream)
            self.error = ""
            self._note(healthy=True)
            yield first
            while True:
                with _failures("events.v1.Events/Subscribe"):
                    envelope = await call(stream.read())
                if envelope is aio.EOF:
                    raise errors.Unavailable("containerd ended the stream of events")
                yield envelope
        finally:
            stream.cancel()

    async def _watch(self, on_answer: Callable[[], None]) -> None:
        """A containerd that hangs keeps its connections: only a call that it ought to answer tells. Its channel and
        events stay, for it may go on; where it ends, they do."""
        unanswered = 0
        while True:
            answered = await self._answers()
            unanswered = unanswered + 1 if answered is False else 0
            if unanswered == UNANSWERED_MAX:
                self._lost(f"no answer for {UNANSWERED_MAX * ANSWER_MS_MAX // 1000} s: it hangs")
                self._note(healthy=False)
            elif answered and not self.healthy:
                log.warning("containerd at %s answers again", self._socket)
                self.error = ""
                self._note(healthy=True)
                on_answer()
            if not unanswered:
                await trio.sleep(WATCH_INTERVAL_MS / 1000)

    async def _answers(self) -> bool | None:
        """None: its connection is over, which the stream of events tells."""
        if self._channel is None:
            return None
        version = self._method("unary_unary", "version.v1.Version/Version", api.VersionResponse)
        try:
            await call(version(Empty(), metadata=self._metadata, timeout=ANSWER_MS_MAX / 1000))
        except aio.AioRpcError as error:
            return False if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else None
        except (aio.UsageError, ConnectionAbortedError):
            return None
        return True

    def _note(self, *, healthy: bool) -> None:
        if healthy == self.healthy:
            return
        self.healthy = healthy
        if healthy:
            self._ready.set()
        else:
            self._ready = trio.Event()
        self._changed.set()
        self._changed = trio.Event()

    async def _greeted(self, stream: Any) -> api.Envelope:
        """Publishes greetings until the subscription delivers one."""
        publish = self._method("unary_unary", "events.v1.Events/Publish", Empty)
        request = api.PublishRequest(topic=HELLO_TOPIC)
        request.event.type_url = "containerd.events.TaskOOM"
        arrived: list[Any] = []

        with trio.move_on_after(SUBSCRIBE_WAIT_MS / 1000):
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    with _failures("events.v1.Events/Subscribe"):
                        arrived.append(await call(stream.read()))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(receive)
                while True:
                    with _failures("events.v1.Events/Publish"):
                        await call(publish(request, metadata=self._metadata, timeout=5))
                    await trio.sleep(HELLO_INTERVAL_MS / 1000)
        if not arrived or arrived[0] is aio.EOF:
            raise errors.Unavailable("containerd does not deliver events")
        first: api.Envelope = arrived[0]
        return first

    async def _make_namespace(self) -> None:
        create = self._method("unary_unary", "namespaces.v1.Namespaces/Create", Empty)
        request = api.CreateNamespaceRequest(namespace=api.Namespace(name=self._namespace))
        try:
            with _failures("namespaces.v1.Namespaces/Create"):
                await call(create(request, metadata=self._metadata, timeout=5))
        except errors.AlreadyExists:
            pass

    def _lost(self, reason: str) -> None:
        if reason != self.error:
            log.warning("containerd at %s: %s", self._socket, reason)
        self.error = reason


class _failures:
    """Turns grpc's errors into ours."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aio.AioRpcError):
            raise errors.from_status(self._method, error.code(), error.details() or "") from None
        if isinstance(error, (aio.UsageError, ConnectionAbortedError)):
            raise errors.Unavailable(f"the connection to containerd closed during {self._method}") from None


@contextmanager
def _limit(method: str) -> Iterator[None]:
    """For one message of a stream, whose whole may take as long as it does."""
    with trio.move_on_after(STREAM_WAIT_MS_MAX / 1000) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.TimedOut(f"containerd does not go on with {method} for {STREAM_WAIT_MS_MAX // 1000} s")


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


def _in_rfc3339(seconds: int) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
