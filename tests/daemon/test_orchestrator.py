"""The loop around the planner: passes follow changes and wake-up times, and survive what goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.testing

from daemon.errors import Kind, Refused
from daemon.orchestration.orchestrator import Orchestrator, PlanNow
from daemon.orchestration.orchestrator_plan import Plan
from raft.store import Store
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec


class ModelWriter:
    """Commits into the model's store; refuses as often as it is told."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        self.refusals = 0
        self.crashes = 0
        self.passes = 0

    @property
    def store(self) -> Store:
        return self.model.store

    async def commit(self, plan: PlanNow, actor: str, request_id: str = "") -> tuple[Plan, int]:
        await trio.lowlevel.checkpoint()
        self.passes += 1
        if self.refusals:
            self.refusals -= 1
            raise Refused("no majority", Kind.UNAVAILABLE)
        if self.crashes:
            self.crashes -= 1
            raise RuntimeError("a planner is broken")
        builder, value = plan(self.store, self.model.now_unix_ms, self.model.new_id)
        if len(builder):
            self.model.apply(builder)
        return value, self.store.revision


def run(body: Callable[[ClusterModel, ModelWriter], object], scenario: Callable[..., object]) -> None:
    async def main() -> None:
        model = ClusterModel(2)
        writer = ModelWriter(model)
        body(model, writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Orchestrator(writer, lambda: model.now_unix_ms, model.new_id).run)
            await scenario(model, writer)  # type: ignore[misc]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_it_starts_with_a_full_pass_and_follows_a_deploy_at_once() -> None:
    async def scenario(model: ClusterModel, writer: ModelWriter) -> None:
        with trio.fail_after(60):
            while len(model.alive("early")) != 1:
                await trio.sleep(0.005)
            model.deploy(app_spec("late", late=service_spec(3)))
            started = trio.current_time()
            while len(model.alive("late")) != 3:
                await trio.sleep(0.001)
        assert trio.current_time() - started < 0.1

    run(lambda model, writer: model.deploy(app_spec(early=service_spec(1))), scenario)


def test_a_pass_is_made_when_a_delay_is_over() -> None:
    async def scenario(model: ClusterModel, writer: ModelWriter) -> None:
        with trio.fail_after(20):
            while not model.alive("web"):
                await trio.sleep(0.01)
            model.fails = lambda task: True
            model.host_step()
            model.fails = lambda task: False
            while not any(task.not_before_unix_ms for task in model.alive("web")):
                await trio.sleep(0.01)
            model.now_unix_ms += 500
            while not any(task.attempt == 1 and task.node_id for task in model.alive("web")):
                await trio.sleep(0.01)

    run(lambda model, writer: model.deploy(app_spec(web=service_spec(1))), scenario)


def test_it_survives_refusals_and_broken_passes() -> None:
    def body(model: ClusterModel, writer: ModelWriter) -> None:
        model.deploy(app_spec(web=service_spec(1)))
        writer.refusals, writer.crashes = 3, 3

    async def scenario(model: ClusterModel, writer: ModelWriter) -> None:
        with trio.fail_after(60):
            while not model.alive("web"):
                await trio.sleep(0.05)
        assert 7 <= writer.passes <= 9

    run(body, scenario)


def test_it_does_nothing_while_nothing_changes() -> None:
    async def scenario(model: ClusterModel, writer: ModelWriter) -> None:
        model.settle()
        await trio.sleep(1)
        before = writer.passes
        await trio.sleep(25)
        assert writer.passes - before <= 1

    run(lambda model, writer: None, scenario)
