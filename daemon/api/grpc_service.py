"""Serves the methods of a protobuf service by trio functions.

A service class has one method per rpc, named in snake case:

    unary -> unary    async def list_nodes(self, request, caller) -> reply
    unary -> stream   async def logs(self, request, caller, send) -> None
    stream -> unary   async def load_image(self, receive, caller) -> reply
    stream -> stream  async def exec(self, receive, caller, send) -> None

`receive()` gives the next message or None at the end; `send(message)` waits until gRPC took it. A raised
`Refused` becomes its status; anything else is logged and becomes INTERNAL without details.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from daemon.api.caller import Caller
from daemon.api.grpc_errors import STATUS
from daemon.errors import Refused
from proto.grpc_trio import Portal, call

logger = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext, whose type parameters nothing here depends on
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Method:
    """One rpc as the server sees it."""

    descriptor: MethodDescriptor
    path: str  # "/fairway.v1.Control/ListNodes"

    @property
    def python_name(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.descriptor.name).lower()

    @property
    def request_class(self) -> type[Message]:
        return GetMessageClass(self.descriptor.input_type)

    @property
    def reply_class(self) -> type[Message]:
        return GetMessageClass(self.descriptor.output_type)


# Decides who calls, or refuses: (context, method) -> Caller.
Authorise = Callable[[Context, Method], Caller]
# Runs one rpc instead of the service class (to pass it on to the leader): returns False to run it here.
Redirect = Callable[[Method, Caller, Context, Receive, Send, Any], Awaitable[bool]]


async def run_here(*_: Any) -> bool:
    """The redirect of a service that every host answers by itself."""
    return False


def service_handler(
    service: ServiceDescriptor,
    implementation: object,
    portal: Portal,
    authorise: Authorise,
    redirect: Redirect = run_here,
) -> grpc.GenericRpcHandler:
    """The generic handler of all methods of `service`; AttributeError where one is not implemented."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for descriptor in service.methods:
        method = Method(descriptor, f"/{service.full_name}/{descriptor.name}")
        function = getattr(implementation, method.python_name)
        handlers[descriptor.name] = _handler(method, function, portal, authorise, redirect)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _handler(
    method: Method, function: Callable[..., Any], portal: Portal, authorise: Authorise, redirect: Redirect
) -> grpc.RpcMethodHandler[Any, Any]:
    streams_in = method.descriptor.client_streaming
    streams_out = method.descriptor.server_streaming

    async def serve(request: Any, context: Context) -> Any:
        try:
            # Here and not in trio, which may come to it after the call has ended: gRPC then follows a null pointer.
            caller = authorise(context, method)
            return await portal.enter(_run, method, function, caller, redirect, request, context)
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception as error:
            answer = _answer(error)
            if isinstance(answer, Refused):
                await context.abort(STATUS[answer.kind], answer.message)
            if isinstance(answer, grpc.aio.AioRpcError):  # another host's own answer to a call that was passed on
                await context.abort(answer.code(), answer.details() or "", answer.trailing_metadata() or ())
            logger.exception("%s failed", method.path)
            await context.abort(grpc.StatusCode.INTERNAL, f"{method.path} failed; fairwayd's log on this host says why")

    factory: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handler: grpc.RpcMethodHandler[Any, Any] = factory[streams_in, streams_out](
        serve, request_deserializer=method.request_class.FromString, response_serializer=_serialise
    )
    return handler


def _answer(error: Exception) -> Exception:
    """What to tell the caller: the error itself, or the first answer among those that a nursery has gathered."""
    if isinstance(error, ExceptionGroup):
        leaves = [_answer(each) for each in error.exceptions]
        return next((leaf for leaf in leaves if isinstance(leaf, (Refused, grpc.aio.AioRpcError))), error)
    return error


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


async def _run(
    method: Method,
    function: Callable[..., Any],
    caller: Caller,
    redirect: Redirect,
    request: Any,
    context: Context,
) -> Any:
    streams_in = method.descriptor.client_streaming
    streams_out = method.descriptor.server_streaming
    replies: list[Any] = []

    async def receive() -> Any:
        message = await call(context.read())
        return None if message is grpc.aio.EOF else message

    async def send(message: Any) -> None:
        if streams_out:
            await call(context.write(message))
        else:
            replies.append(message)

    if await redirect(method, caller, context, receive, send, None if streams_in else request):
        return replies[0] if replies else None
    arguments: list[Any] = [receive if streams_in else request, caller]
    if streams_out:
        arguments.append(send)
    return await function(*arguments)
