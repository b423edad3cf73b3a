"""Carries one task of this host from assignment to removal: observe, plan (`step_plan`), apply, repeat.

A runner never restarts its container: a task that ends has ended, and the leader decides about another. It
can be started at any point of a task's life, as it is after a restart of the daemon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from daemon.agent.step_plan import ENDED, Container, Observation, Step, next_step
from proto import objects_pb2 as objects
from runtime.model import ObservedContainer

logger = logging.getLogger(__name__)

NO_HEALTH = objects.HEALTH_NONE
BACK_OFF_S_MIN = 0.2
BACK_OFF_S_MAX = 10.0
LINGER_S_MAX = 3.0  # for clients that are connected still
MESSAGE_CHARACTERS_MAX = 500
STOPPED_BY_OPERATOR = "stopped by an operator"
# Not ready any more by their status, and perhaps not withdrawn yet, when a daemon comes back to them.
MAY_HAVE_CLIENTS = (objects.TASK_STATE_STOPPING, objects.TASK_STATE_LOST)


class TaskFailure(Exception):
    """The task cannot start, for a reason that its user can understand and change."""


@dataclass(frozen=True)
class Readiness:
    """Whether a running task may get traffic, and what to tell people about it."""

    ready: bool
    health: objects.Health.ValueType = NO_HEALTH
    message: str = ""


class TaskHost(Protocol):
    """What a runner needs of its host; `task_host.py` has the real one."""

    async def start(self, task: objects.Task, progress: Callable[[str], None]) -> int:
        """Makes everything ready and starts the container; its process id. Raises TaskFailure."""

    async def wait_ready(
        self, task: objects.Task, pid: int, known: Readiness, report: Callable[[Readiness], None]
    ) -> None:
        """Watches readiness, which was `known` last, for as long as it runs and reports every change of it.

        Returns only where a health check has failed for good, or what was to be done once it had started.
        """

    async def stop(self, task: objects.Task) -> ObservedContainer | None:
        """Signals the container, waits for its grace period, kills it; what is left when it has ended."""

    async def clean_up(self, task: objects.Task) -> None:
        """Removes container, network and anonymous volumes; what is not there is fine."""

    def linger_s(self, task: objects.Task) -> float:
        """For how long a connection that was balanced before the withdrawal may still be on its way to the task."""

    async def wait_idle(self, task: objects.Task, pid: int) -> None:
        """Returns when no client is connected to the task any more."""

    def withdrawn(self, task_id: str) -> bool:
        """Whether no balancer of a host that is up sends new connections to the task."""

    def changed(self) -> trio.Event:
        """Set at the next change of what `withdrawn` says."""


class TaskRunner:
    """One task; `update` and `observe` feed it, `run` does the work until nothing is left."""

    def __init__(
        self,
        task: objects.Task,
        host: TaskHost,
        reported: Callable[[TaskRunner], None],
        now_unix_ms: Callable[[], int],
        withdraw_wait_ms_max: int,
    ) -> None:
        self.task = task
        self.status = objects.TaskStatus()
        self.status.CopyFrom(task.status)
        self.gone = False
        self.finished = trio.Event()  # set with `gone`
        self.over = trio.Event()  # set when `status` says how it ended
        self._desired = task.desired
        self._host = host
        self._reported = reported
        self._now_unix_ms = now_unix_ms
        self._withdraw_wait_s_max = withdraw_wait_ms_max / 1000
        self._container = Container.ABSENT
        self._observed: ObservedContainer | None = None
        self._cleaned = False
        self._failing = ""
        self._ended_by_operator = False
        self._grace_ms = 0
        self._withdrawn = False
        # This host's own balancer, for one, may send to it still: what the status says of it is news to it as well.
        self._was_ready = self.status.ready or self.status.state in MAY_HAVE_CLIENTS
        self._wake = trio.Event()

    def update(self, task: objects.Task | None) -> None:
        """What the cluster wants now; None: it no longer knows the task, so it must stop."""
        desired = objects.DESIRED_STATE_STOPPED if task is None else task.desired
        if task is not None:
            self.task = task
        if desired != self._desired:
            self._desired = desired
            self._wake.set()

    def end_for_operator(self, grace_ms: int) -> bool:
        """The task is to end, as if by itself; False where it does not run. `grace_ms` 0: as its service says."""
        if self.status.state != objects.TASK_STATE_RUNNING or self._container is not Container.RUNNING:
            return False
        self._ended_by_operator, self._grace_ms = True, grace_ms
        self._wake.set()
        return True

    def observe(self, container: ObservedContainer | None) -> None:
        """What containerd says of the task's container now; None: it has none."""
        before = self._container
        self._observed = container
        self._container = Container.ABSENT if container is None else Container(_state(container))
        if container is not None:
            self._cleaned = False
        if self._container is not before:
            self._wake.set()

    def observe_listed(self, container: ObservedContainer | None) -> None:
        """What a listing says, which may be older than a step that is under way: only news of an end count."""
        if self._container is Container.RUNNING and (container is None or container.state == "stopped"):
            self.observe(container)

    async def run(self) -> None:
        """Steps until nothing of the task is left on the host; `gone` is true then."""
        back_off_s = BACK_OFF_S_MIN
        while True:
            self._wake = trio.Event()
            step = self._next_step()
            if step is Step.DONE:
                break
            try:
                await self._apply(step)
                back_off_s = BACK_OFF_S_MIN
            except Exception as error:
                logger.warning("task %s: %s: %s", self.task.meta.name, step.value, _innermost(error))
                if step is Step.START:
                    self._end(objects.TASK_STATE_FAILED, f"{error}")
                    continue
                with trio.move_on_after(back_off_s):
                    await self._wake.wait()
                back_off_s = min(back_off_s * 2, BACK_OFF_S_MAX)
        self.gone = True
        if self.status.state not in ENDED:
            self._end(objects.TASK_STATE_EXITED, "stopped")
        else:
            self._reported(self)
        self.finished.set()

    def _next_step(self) -> Step:
        observed = Observation(
            container=self._container,
            cleaned=self._cleaned,
            withdrawn=self._withdrawn or not self._was_ready,
            failing=bool(self._failing) or self._ended_by_operator,
        )
        return next_step(self._desired, self.status.state, observed)

    async def _apply(self, step: Step) -> None:
        match step:
            case Step.START:
                await self._start()
            case Step.WATCH:
                await self._watch()
            case Step.AWAIT_WITHDRAWAL:
                await self._await_withdrawal()
            case Step.STOP:
                await self._stop()
            case Step.RECORD_VANISHED:
                self._end(objects.TASK_STATE_FAILED, "its container is gone: the host went down or lost it")
            case Step.RECORD_EXIT:
                self._record_exit()
            case Step.CLEAN_UP:
                await self._host.clean_up(self.task)
                self._container, self._observed, self._cleaned = Container.ABSENT, None, True

    async def _start(self) -> None:
        self._set(objects.TASK_STATE_PREPARING)
        failure: Exception | None = None
        pid = 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_unwanted, scope)
                try:
                    pid = await self._host.start(self.task, self._progress)
                except Exception as error:  # raised below, outside of the nursery that would wrap it
                    failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if scope.cancelled_caught:
            self._end(objects.TASK_STATE_EXITED, "stopped before it had started")
            return
        if self._container is not Container.STOPPED:  # it may have ended already
            self._container = Container.RUNNING
        self.status.started_unix_ms = self._now_unix_ms()
        self.status.pid = pid
        self._set(objects.TASK_STATE_RUNNING)

    async def _cancel_when_unwanted(self, scope: trio.CancelScope) -> None:
        while self._desired == objects.DESIRED_STATE_RUNNING:
            await self._wake.wait()
            self._wake = trio.Event()
        scope.cancel()

    def _progress(self, message: str) -> None:
        self.status.message = message[:MESSAGE_CHARACTERS_MAX]
        self._reported(self)

    async def _watch(self) -> None:
        """Runs the readiness watch until the container ends, is to end, or fails its health check."""
        if self.status.state != objects.TASK_STATE_RUNNING:
            self._set(objects.TASK_STATE_RUNNING)
        pid = self._observed.pid if self._observed else self.status.pid
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_readiness, pid, nursery.cancel_scope)
            await self._wake.wait()
            nursery.cancel_scope.cancel()

    async def _watch_readiness(self, pid: int, scope: trio.CancelScope) -> None:
        known = Readiness(self.status.ready, self.status.health, self.status.message)
        await self._host.wait_ready(self.task, pid, known, self._report_ready)
        self._failing = self.status.message or "its health check failed"
        logger.warning("task %s is stopped: %s", self.task.meta.name, self._failing)
        scope.cancel()

    def _report_ready(self, now: Readiness) -> None:
        before = Readiness(self.status.ready, self.status.health, self.status.message)
        self._was_ready = self._was_ready or now.ready
        if now.ready:
            self._withdrawn = False
        if now != before:
            self.status.ready = now.ready
            self.status.health = now.health
            self.status.message = now.message[:MESSAGE_CHARACTERS_MAX]
            self._reported(self)

    async def _await_withdrawal(self) -> None:
        if self.status.ready:
            self.status.ready = False
            self._set(objects.TASK_STATE_STOPPING)
        with trio.move_on_after(self._withdraw_wait_s_max) as waiting:
            while not self._host.withdrawn(self.task.meta.id):
                await self._host.changed().wait()
        if waiting.cancelled_caught:
            logger.warning(
                "task %s is stopped although not every host has confirmed within %.1f s that it sends nothing to it",
                self.task.meta.name,
                self._withdraw_wait_s_max,
            )
        # Requests that were balanced here a moment ago are answered before the signal.
        pid = self._observed.pid if self._observed else self.status.pid
        with trio.move_on_after(LINGER_S_MAX):
            await trio.sleep(self._host.linger_s(self.task))
            try:
                await self._host.wait_idle(self.task, pid)
            except Exception as error:  # its process may have ended meanwhile
                logger.debug("who is connected to task %s is not known: %s", self.task.meta.name, error)
        self._withdrawn = True

    async def _stop(self) -> None:
        self._set(objects.TASK_STATE_STOPPING)
        task = self.task
        if self._grace_ms:
            task = objects.Task()
            task.CopyFrom(self.task)
            task.spec.container.stop_grace_ms = self._grace_ms
        self.observe(await self._host.stop(task))

    def _record_exit(self) -> None:
        code = self._observed.exit_code if self._observed else 0
        out_of_memory = bool(self._observed and self._observed.out_of_memory)
        self.status.exit_code = code
        self.status.out_of_memory = out_of_memory
        asked = self._desired == objects.DESIRED_STATE_STOPPED
        if self._failing:
            self._end(objects.TASK_STATE_FAILED, self._failing)
        elif asked:
            self._end(objects.TASK_STATE_EXITED, self.task.desired_message or "stopped")
        elif self._ended_by_operator:
            self._end(objects.TASK_STATE_EXITED, STOPPED_BY_OPERATOR)
        elif out_of_memory:
            self._end(objects.TASK_STATE_FAILED, "out of memory: it used more than its memory limit")
        elif code == 0:
            self._end(objects.TASK_STATE_EXITED, "exit code 0")
        else:
            self._end(objects.TASK_STATE_FAILED, f"exit code {code}")

    def _end(self, state: objects.TaskState.ValueType, message: str) -> None:
        self.status.ready = False
        self.status.message = message[:MESSAGE_CHARACTERS_MAX]
        self.status.finished_unix_ms = self._now_unix_ms()
        self._set(state, keep_message=True)
        self.over.set()

    def _set(self, state: objects.TaskState.ValueType, keep_message: bool = False) -> None:
        self.status.state = state
        if not keep_message:
            self.status.message = ""
        self._reported(self)


def _state(container: ObservedContainer) -> str:
    return "running" if container.state == "paused" else container.state


def _innermost(error: BaseException) -> BaseException:
    """What was raised within nurseries."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
