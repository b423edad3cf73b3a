"""The control API's methods for operators' hands: restart, stop, signal, inspect, stats, top, cp and port-forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon import lookup
from daemon.api.asking import ask_each
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.grpc_service import Receive, Send
from daemon.api.hands_relay import relay_both, relay_in, relay_out
from daemon.api.inspecting import inspect
from daemon.deploying.restart_changes_plan import plan_restart
from daemon.errors import Kind, Refused
from daemon.leader.leadership import now_unix_ms
from daemon.leader.writer import swapped
from daemon.orchestration.kinds import is_job
from daemon.orchestration.quantities import duration_text
from daemon.orchestration.restart_plan import after_end, after_failure
from daemon.orchestration.task_states import serving, succeeded
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2_grpc import HostStub
from raft.store import Store

TASKS_SIGNALLED_MAX = 1_000
USAGE_S_MAX = 10.0


class ControlHands:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def restart_tasks(self, request: control.RestartRequest, caller: Caller) -> control.RestartReply:
        reply, revision = await self._context.leading().writer.commit(
            lambda store, now, _id: swapped(plan_restart(store, request.target, now)),
            caller.actor,
            request.request_id,
        )
        reply.revision = revision
        return reply

    async def stop_task(self, request: control.StopTaskRequest, _caller: Caller) -> control.StopTaskReply:
        store = await self._context.current_store()
        running = [task for task in lookup.find_tasks(store, request.target) if _running(task)]
        task = lookup.running_task(store, request.target) if not running else running[0]
        if len(running) > 1:
            names = ", ".join(sorted(f"{each.app}/{each.meta.name}" for each in running[:10]))
            raise Refused(
                f"{request.target} has {len(running)} running tasks ({names}): name one of them; "
                "`fairway scale` and `fairway rm` stop services"
            )
        stub = self._context.host(self._context.node(task.node_id))
        try:
            answer: control.StopTaskReply = await call(
                stub.StopTask(control.StopTaskRequest(task_id=task.meta.id, grace_ms=request.grace_ms))  # type: ignore[arg-type]
            )
        except ConnectionAbortedError as error:
            raise Refused("the host of the task does not answer any more", Kind.UNAVAILABLE) from error
        ended = objects.Task()
        ended.CopyFrom(task)
        ended.status.CopyFrom(answer.task.status)
        service = store.get(objects.Service, task.service_id)
        return control.StopTaskReply(task=ended, message=what_follows(ended, service, now_unix_ms()))

    async def signal_tasks(self, request: control.SignalTasksRequest, _caller: Caller) -> control.SignalTasksReply:
        store = await self._context.current_store()
        running = [task for task in lookup.find_tasks(store, request.target) if _running(task)]
        if not running:
            lookup.running_task(store, request.target)  # says why not
        reply = control.SignalTasksReply()
        failures: list[str] = []

        async def signal(task: objects.Task) -> None:
            name = f"{task.app}/{task.meta.name}"
            try:
                stub = self._context.host(self._context.node(task.node_id))
                ask = control.SignalTasksRequest(task_id=task.meta.id, signal=request.signal)
                await call(stub.SignalTask(ask))  # type: ignore[arg-type]
                reply.tasks.append(name)
            except Exception as error:
                failures.append(f"{name}: {_words(error)}")

        await ask_each(running[:TASKS_SIGNALLED_MAX], signal)
        if failures:
            got = f"; {len(reply.tasks)} others got it" if reply.tasks else ""
            raise Refused("; ".join(sorted(failures)[:10]) + got, Kind.NOT_POSSIBLE)
        reply.tasks.sort()
        return reply

    async def inspect(self, request: control.InspectRequest, _caller: Caller) -> control.InspectReply:
        return inspect(await self._context.current_store(), request)

    async def read_usage(self, request: control.ReadUsageRequest, _caller: Caller) -> control.ReadUsageReply:
        store = await self._context.current_store()
        found = [task for task in _tasks_of(store, request.targets) if _running(task)]
        by_node: dict[str, dict[str, objects.Task]] = {}
        for task in found:
            by_node.setdefault(task.node_id, {})[task.meta.id] = task
        reply = control.ReadUsageReply()

        async def ask(node_id: str) -> None:
            tasks = by_node[node_id]
            node = store.get(objects.Node, node_id)
            name = node.meta.name if node is not None else node_id
            try:
                stub = self._context.host(self._context.node(node_id))
                question = control.ReadUsageRequest(task_ids=list(tasks))
                answer: control.ReadUsageReply = await call(stub.ReadUsage(question, timeout=USAGE_S_MAX))  # type: ignore[arg-type]
            except Exception as error:
                reply.silent.append(f"{name}: {_words(error)}")
                return
            for usage in answer.tasks:
                task = tasks[usage.task_id]
                usage.name, usage.node = f"{task.app}/{task.meta.name}", name
                reply.tasks.append(usage)

        await ask_each(list(by_node), ask)
        order = {task.meta.id: (task.app, task.service, task.slot, task.meta.id) for task in found}
        reply.tasks.sort(key=lambda usage: order[usage.task_id])
        return reply

    async def list_processes(
        self, request: control.ListProcessesRequest, _caller: Caller
    ) -> control.ListProcessesReply:
        task, stub = await self._running_task(request.target)
        question = control.ListProcessesRequest(task_id=task.meta.id)
        reply: control.ListProcessesReply = await call(stub.ListProcesses(question, timeout=USAGE_S_MAX))  # type: ignore[arg-type]
        reply.name = f"{task.app}/{task.meta.name}"
        return reply

    async def copy_from(self, request: control.CopyFromRequest, _caller: Caller, send: Send) -> None:
        task, stub = await self._running_task(request.target)
        ask = control.CopyFromRequest(task_id=task.meta.id, path=request.path, follow_link=request.follow_link)
        await relay_out(stub.CopyFrom(ask), send)

    async def copy_to(self, receive: Receive, _caller: Caller) -> control.CopyToReply:
        first: control.CopyToRequest | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of a copy says where it goes")
        task, stub = await self._running_task(first.start.target)
        passed = control.CopyToRequest(start=first.start)
        passed.start.task_id = task.meta.id
        stream: Any = stub.CopyTo()  # type: ignore[call-arg]
        reply: control.CopyToReply = await relay_in(stream, passed, receive)
        return reply

    async def forward(self, receive: Receive, _caller: Caller, send: Send) -> None:
        first: control.ForwardInput | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of a forwarded connection says where it goes")
        task, stub = await self._running_task(first.start.target)
        passed = control.ForwardInput(start=first.start)
        passed.start.task_id, passed.start.address = task.meta.id, task.address

        async def named(output: control.ForwardOutput) -> None:
            if output.HasField("connected"):
                output.connected = f"{task.app}/{task.meta.name}"
            await send(output)

        stream: Any = stub.Forward()  # type: ignore[call-arg]
        await relay_both(stream, passed, receive, named)

    async def _running_task(self, target: str) -> tuple[objects.Task, HostStub]:
        """A service stands for its first ready task, or its first running one."""
        store = await self._context.current_store()
        ready = [task for task in lookup.find_tasks(store, target) if serving(task) and task.node_id]
        task = ready[0] if ready else lookup.running_task(store, target)
        return task, self._context.host(self._context.node(task.node_id))


def what_follows(task: objects.Task, service: objects.Service | None, now_unix_ms: int) -> str:
    """What the cluster does about a task that has ended, by its restart policy, in words. Pure."""
    name = f"{task.app}/{task.meta.name}"
    how = f"{name} has stopped (exit code {task.status.exit_code})"
    if service is None or service.removing:
        return f"{how}; its service is being removed"
    if is_job(service.spec):
        restart = None if succeeded(task) else after_failure(task, now_unix_ms)
        none = "its job has no further try for it"
    else:
        restart = after_end(task, now_unix_ms)
        none = f"its restart policy asks for no other; `fairway restart {name}` starts one"
    if restart is None:
        return f"{how}; {none}"
    wait_ms = max(restart.not_before_unix_ms - now_unix_ms, 0)
    return f"{how}; by its restart policy another one follows" + (f" in {duration_text(wait_ms)}" if wait_ms else "")


def _tasks_of(store: Store, targets: Sequence[str]) -> list[objects.Task]:
    """Of apps, services and tasks, each once; all where none is named. Raises Refused."""
    if not targets:
        return list(store.table(objects.Task))
    found: dict[str, objects.Task] = {}
    apps = {app.meta.name for app in store.table(objects.App)}
    for target in targets:
        if target in apps:
            tasks = [task for task in store.table(objects.Task) if task.app == target]
        else:
            tasks = lookup.find_tasks(store, target)
        found.update((task.meta.id, task) for task in tasks)
    return list(found.values())


def _running(task: objects.Task) -> bool:
    return task.status.state == objects.TASK_STATE_RUNNING and bool(task.node_id)


def _words(error: Exception) -> str:
    details = getattr(error, "details", None)
    return (details() if callable(details) else "") or str(error)
