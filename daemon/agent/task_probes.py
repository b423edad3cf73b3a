"""Watches one task that has probes: start, live and ready, and its health check beside them.

All of them count together: a task is ready where it can be reached, its start probe has passed once, and its ready
probe and health check pass; it is replaced where its start or live probe or its health check fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from daemon.agent.task_runner import Readiness
from proto import objects_pb2 as objects
from runtime.healthcheck import Check, HealthReport, run_healthcheck
from runtime.probe_plan import Kind, ProbeState
from runtime.probes import Way, run_probe

SEEN_READY = (objects.HEALTH_HEALTHY, objects.HEALTH_NOT_READY)
Report = Callable[[Readiness], None]


class TaskProbes:
    """`known`: what a daemon before this one said of the task; it holds until a probe says otherwise."""

    def __init__(self, probes: objects.Probes, check: Check | None, way: Way, known: Readiness, report: Report) -> None:
        self._probes = probes
        self._check = check
        self._way = way
        self._report = report
        self._was_ready = known.ready or known.health in SEEN_READY
        self._dead = ""  # why it is to be replaced
        self._failed = trio.Event()
        self._waits: dict[str, str] = {}  # what keeps it from being ready, with words about it
        if probes.HasField("start") and not self._was_ready:
            self._waits["start"] = "its start probe has not passed yet"
        if not known.ready:
            self._waits["reach"] = ""
            if check is not None:
                self._waits["check"] = "its health check has not passed yet"
            if probes.HasField("ready"):
                self._waits["ready"] = "its ready probe has not passed yet"
        self._ready = ProbeState(None if not self._was_ready else known.ready)

    async def run(self, wait_reachable: Callable[[Report], Awaitable[None]]) -> None:
        """Until the task is to be replaced. `wait_reachable` returns when others can reach it."""
        self._tell()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._course, wait_reachable)
            await self._failed.wait()
            nursery.cancel_scope.cancel()

    async def _course(self, wait_reachable: Callable[[Report], Awaitable[None]]) -> None:
        if "start" in self._waits:
            await run_probe(Kind.START, self._probes.start, self._way, self._note_start)
            if "start" in self._waits:
                return  # it failed, or the container is gone
        async with trio.open_nursery() as nursery:
            if self._probes.HasField("live"):
                nursery.start_soon(run_probe, Kind.LIVE, self._probes.live, self._way, self._note_live)
            if self._probes.HasField("ready"):
                nursery.start_soon(run_probe, Kind.READY, self._probes.ready, self._way, self._note_ready, self._ready)
            if "reach" in self._waits:
                await wait_reachable(self._note_reachable)
                del self._waits["reach"]
                self._tell()
            if self._check is not None:
                before = objects.HEALTH_STARTING if "check" in self._waits else objects.HEALTH_HEALTHY
                nursery.start_soon(run_healthcheck, self._check, self._execute_check, self._note_check, before)

    async def _execute_check(self, command: object, timeout_ms: int) -> tuple[int, bytes]:
        assert self._check is not None
        return await self._way.execute(self._check.command, timeout_ms)

    def _note_start(self, state: ProbeState, wrong: str) -> None:
        if state.verdict is False:
            self._end(f"its start probe failed {state.failures} times in a row: {wrong}")
        else:
            self._set("start", None if state.verdict else f"its start probe has not passed yet ({wrong})")

    def _note_live(self, state: ProbeState, wrong: str) -> None:
        if state.verdict is False:
            self._end(f"its live probe failed {state.failures} times in a row: {wrong}")

    def _note_ready(self, state: ProbeState, wrong: str) -> None:
        lost = state.verdict is False
        if state.verdict:
            self._set("ready", None)
        elif wrong:
            self._set("ready", f"its ready probe {'fails' if lost else 'has not passed yet'} ({wrong})")
        elif lost:
            self._set("ready", "its ready probe passes again, and is to do so for a while before it gets traffic")

    def _note_reachable(self, now: Readiness) -> None:
        self._set("reach", now.message.removeprefix("running; "))

    def _note_check(self, now: HealthReport) -> None:
        if now.health == objects.HEALTH_UNHEALTHY:
            self._end(now.message)
        else:
            self._set("check", None if now.health == objects.HEALTH_HEALTHY else "its health check has not passed yet")

    def _set(self, part: str, words: str | None) -> None:
        if words is None:
            self._waits.pop(part, None)
        else:
            self._waits[part] = words
        self._tell()

    def _end(self, words: str) -> None:
        self._dead = words
        self._tell()
        self._failed.set()

    def _tell(self) -> None:
        if self._dead:
            self._report(Readiness(False, objects.HEALTH_UNHEALTHY, f"unhealthy: {self._dead}"))
        elif not self._waits:
            self._was_ready = True
            self._report(Readiness(True, objects.HEALTH_HEALTHY))
        else:
            health = objects.HEALTH_NOT_READY if self._was_ready else objects.HEALTH_STARTING
            words = "; ".join(filter(None, self._waits.values()))
            self._report(Readiness(False, health, f"running; {words}" if words else ""))
