"""Probes of one task together: when it is ready, when it is replaced, and what is said of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from daemon.agent.task_probes import TaskProbes
from daemon.agent.task_runner import Readiness
from daemon.deploying.app_changes import as_tasks_see, spec_changes
from daemon.deploying.container_checks import says_settings
from daemon.deploying.probe_checks import probe_problems
from proto import objects_pb2 as objects
from runtime.healthcheck import Check
from runtime.probes import Way

HEALTHY, NOT_READY = objects.HEALTH_HEALTHY, objects.HEALTH_NOT_READY
STARTING, UNHEALTHY = objects.HEALTH_STARTING, objects.HEALTH_UNHEALTHY
Report = Callable[[Readiness], None]


def probe(name: str, failures: int = 2) -> objects.Probe:
    return objects.Probe(exec=[name], interval_ms=1_000, failures=failures)


class Task:
    """`passes` says which commands pass; every probe takes no time. `asked` are all that were run, in order."""

    def __init__(self, *kinds: str, check: Check | None = None, known: Readiness | None = None) -> None:
        self.passes = {"start": True, "live": True, "ready": True, "check": True}
        self.asked: list[str] = []
        self.said: list[Readiness] = []
        self.reachable = trio.Event()
        self.over = False
        self.probes = objects.Probes(**{kind: probe(kind) for kind in kinds})
        way = Way("10.0.0.1", self._connect, self._execute, trio.CapacityLimiter(1))
        self._watch = TaskProbes(self.probes, check, way, known or Readiness(False), self.said.append)

    async def _connect(self, port: int) -> trio.abc.Stream:
        raise AssertionError("all probes are commands")

    async def _execute(self, command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
        self.asked.append(command[0])
        return (0 if self.passes[command[0]] else 1), b""

    async def _wait_reachable(self, tell: Report) -> None:
        tell(Readiness(False, message="running; nothing listens on port 80 yet"))
        await self.reachable.wait()

    async def run(self) -> None:
        await self._watch.run(self._wait_reachable)
        self.over = True

    def now(self) -> Readiness:
        return self.said[-1]


def play(task: Task, story: Callable[[Task], object]) -> None:
    """Runs the task beside `story`, an async function that ends the test."""

    async def main() -> None:
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task.run)
                await story(task)  # type: ignore[misc]
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_start_probe_holds_back_all_others() -> None:
    async def story(task: Task) -> None:
        task.passes["start"] = False
        task.reachable.set()
        await trio.sleep(0.5)
        assert set(task.asked) == {"start"} and task.now().health == STARTING and "start probe" in task.now().message
        task.passes["start"] = True
        await trio.sleep(2)
        assert {"live", "ready"} <= set(task.asked) and task.now() == Readiness(True, HEALTHY)
        count = task.asked.count("start")
        await trio.sleep(60)
        assert task.asked.count("start") == count

    play(Task("start", "live", "ready"), story)


@pytest.mark.parametrize("kind", ["start", "live"])
def test_a_failed_start_or_live_probe_has_the_task_replaced(kind: str) -> None:
    async def story(task: Task) -> None:
        task.passes[kind] = False
        task.reachable.set()
        await trio.sleep(30)
        assert task.over and not task.now().ready and task.now().health == UNHEALTHY
        assert task.now().message == f"unhealthy: its {kind} probe failed 2 times in a row: {kind}: exit code 1"

    play(Task("start", "live", "ready"), story)


def test_a_failing_ready_probe_takes_the_traffic_and_nothing_else() -> None:
    async def story(task: Task) -> None:
        task.reachable.set()
        await trio.sleep(3)
        assert task.now().ready
        task.passes["ready"] = False
        await trio.sleep(30)
        assert not task.over and not task.now().ready and task.now().health == NOT_READY
        assert "its ready probe fails (ready: exit code 1)" in task.now().message
        task.passes["ready"] = True
        await trio.sleep(3)
        assert task.now() == Readiness(True, HEALTHY)

    play(Task("live", "ready"), story)


def test_nobody_is_sent_to_a_task_that_cannot_be_reached() -> None:
    async def story(task: Task) -> None:
        await trio.sleep(30)
        assert not task.now().ready and task.now().message == "running; nothing listens on port 80 yet"
        task.reachable.set()
        await trio.sleep(1)
        assert task.now().ready

    play(Task("ready"), story)


def test_the_health_check_counts_beside_the_probes() -> None:
    check = Check(("check",), 1_000, 500, retries=2, start_period_ms=0, start_interval_ms=1_000)

    async def story(task: Task) -> None:
        task.reachable.set()
        await trio.sleep(0.5)
        assert not task.now().ready and "health check has not passed" in task.now().message
        await trio.sleep(2)
        assert task.now().ready
        task.passes["check"] = False
        await trio.sleep(30)
        assert task.over and task.now().health == UNHEALTHY

    play(Task("ready", check=check), story)


@pytest.mark.parametrize("known", [Readiness(True, HEALTHY), Readiness(False, NOT_READY, "running; no")])
def test_what_is_known_outlives_the_daemon(known: Readiness) -> None:
    async def story(task: Task) -> None:
        task.passes["start"] = False
        task.reachable.set()
        await trio.sleep(0.5)
        assert "start" not in task.asked and all(said.health != STARTING for said in task.said)
        if known.ready:
            assert all(said.ready for said in task.said)
        else:
            assert not task.said[0].ready and task.now().ready

    play(Task("start", "live", "ready", known=known), story)


def test_probes_need_hosts_that_know_them_and_new_tasks() -> None:
    before = objects.ServiceSpec(container=objects.ContainerSpec(image="web:1"))
    after = objects.ServiceSpec(container=objects.ContainerSpec(image="web:1", probes=objects.Probes(live=probe("x"))))
    assert says_settings(after) and not says_settings(before)
    assert as_tasks_see(before) != as_tasks_see(after)
    assert spec_changes(before, after) == ["live probe changed"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (objects.Probe(), "exactly one"),
        (objects.Probe(exec=["x"], tcp=objects.TcpProbe(port=1)), "exactly one"),
        (objects.Probe(tcp=objects.TcpProbe()), "no port"),
        (objects.Probe(exec=["x"], interval_ms=1), "interval"),
        (objects.Probe(exec=["x"], timeout_ms=-1), "timeout"),
        (objects.Probe(exec=["x"], failures=100_000), "in a row"),
        (objects.Probe(http=objects.HttpProbe(port=1, path="x y")), "path"),
        (objects.Probe(http=objects.HttpProbe(port=1, headers=[objects.HttpHeader(name="a", value="b\nc")])), "header"),
    ],
)
def test_the_cluster_refuses_what_cannot_be_whoever_wrote_it(wrong: objects.Probe, words: str) -> None:
    (problem,) = probe_problems(objects.ContainerSpec(probes=objects.Probes(live=wrong)))
    assert words in problem and problem.startswith("its live probe ")
    assert list(probe_problems(objects.ContainerSpec(probes=objects.Probes(ready=probe("fine"))))) == []
