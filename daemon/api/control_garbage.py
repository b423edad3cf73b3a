"""The control API's methods about what is on the hosts' disks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from daemon import lookup
from daemon.api.asking import ask_each
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from proto import garbage_pb2 as messages
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2_grpc import HostStub

SPACE_S_MAX = 20.0
COLLECT_S_MAX = 300.0


class ControlGarbage:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def read_space(self, request: messages.ReadSpaceRequest, _caller: Caller) -> messages.ReadSpaceReply:
        reply = messages.ReadSpaceReply()

        async def ask(stub: HostStub, name: str) -> None:
            question = messages.ReadSpaceRequest(items=request.items)
            answer: messages.HostSpace = await call(stub.ReadSpace(question, timeout=SPACE_S_MAX))  # type: ignore[arg-type]
            answer.node = name
            reply.hosts.append(answer)

        reply.silent.extend(await self._ask(request.nodes, ask))
        reply.hosts.sort(key=lambda host: host.node)
        return reply

    async def collect_garbage(
        self, request: messages.CollectGarbageRequest, _caller: Caller
    ) -> messages.CollectGarbageReply:
        reply = messages.CollectGarbageReply()
        passed = messages.CollectGarbageRequest(plan_only=request.plan_only, logs=request.logs, volumes=request.volumes)

        async def ask(stub: HostStub, name: str) -> None:
            answer: messages.CollectedGarbage = await call(stub.CollectGarbage(passed, timeout=COLLECT_S_MAX))  # type: ignore[arg-type]
            answer.node = name
            reply.hosts.append(answer)

        reply.silent.extend(await self._ask(request.nodes, ask))
        reply.hosts.sort(key=lambda host: host.node)
        return reply

    async def _ask(self, names: Sequence[str], ask: Callable[[HostStub, str], Awaitable[None]]) -> list[str]:
        """Who did not answer, and why. Raises Refused where a name is nobody's."""
        store = await self._context.current_store()
        nodes = [lookup.find_node(store, name) for name in names] or list(store.table(objects.Node))
        silent: list[str] = []

        async def one(node: objects.Node) -> None:
            try:
                await ask(self._context.host(self._context.node(node.meta.id)), node.meta.name)
            except Exception as error:
                details = getattr(error, "details", None)  # of gRPC's
                words = (details() if callable(details) else "") or str(error)
                silent.append(f"{node.meta.name}: {words}")

        await ask_each({node.meta.id: node for node in nodes}.values(), one)
        return sorted(silent)
