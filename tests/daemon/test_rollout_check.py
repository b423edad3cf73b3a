"""Canaries that are judged by what their new tasks say: on where they are well, back where they are not."""

from __future__ import annotations

import pytest

from daemon.leader.endpoints_plan import frontends
from daemon.leader.rollout_checks import BAD_MS_MAX, Judge
from daemon.orchestration.rollout_check_plan import look_at
from daemon.orchestration.scraped_metrics import key_of
from proto import objects_pb2 as objects
from proto.host_pb2 import ScrapedValue, TaskLoad
from tests.daemon.cluster_model import ClusterModel, app_spec
from tests.daemon.rollouts import Rollout, canary, rollout
from tests.daemon.test_rollout_plan import deployed, running

ERRORS = objects.ScrapedMetric(port=80, name="errors", per_second=True)
REQUESTS = objects.ScrapedMetric(port=80, name="requests", per_second=True)
SHARE = objects.RolloutCheck(metric=ERRORS, of=REQUESTS, max_millionths=10_000)
COUNT = objects.RolloutCheck(metric=ERRORS, max_millionths=2_500_000)
STEP = objects.RolloutStep(share_millionths=250_000, wait_ms=5_000)
GOOD, BAD, UNKNOWN = objects.CHECK_STATE_GOOD, objects.CHECK_STATE_BAD, objects.CHECK_STATE_UNSPECIFIED


def checked(number: int, check: objects.RolloutCheck = SHARE) -> objects.ServiceSpec:
    spec = canary(number, STEP)
    spec.rollout.check.CopyFrom(check)
    return spec


def load(errors: float | None, requests: float | None = None, problem: str = "") -> TaskLoad:
    found = TaskLoad()
    for metric, value in ((ERRORS, errors), (REQUESTS, requests)):
        found.scraped.add(metric=key_of(metric), known=value is not None, value=value or 0.0, problem=problem)
    return found


class Judged:
    """A service whose second version comes in step by step; `say` is what each of its new tasks says."""

    def __init__(self, check: objects.RolloutCheck = SHARE) -> None:
        self.model: ClusterModel = deployed(checked(1, check))
        self.model.deploy(app_spec(web=checked(2, check)))
        self.judge = Judge()

    def go(self, seconds: int, say: TaskLoad | None) -> None:
        model = self.model
        for _ in range(seconds):
            model.plan()
            model.host_step()
            service = model.service("web")
            fresh = [task for task in model.serving("web") if task.generation == service.generation]
            loads = {task.meta.id: say for task in fresh} if say is not None else {}
            self.judge.look(model.store, loads, model.now_unix_ms)
            builder = self.judge.plan(model.store, model.now_unix_ms, model.now_unix_ms)
            if len(builder):
                model.apply(builder)
            model.now_unix_ms += 1_000


def test_new_tasks_that_are_well_are_followed_by_all() -> None:
    judged = Judged()
    judged.go(40, load(0.5, 100.0))
    assert running(judged.model) == ["2"] * 4 and rollout(judged.model).state == Rollout.STATE_DONE


@pytest.mark.parametrize("say", [None, load(None, None, "HTTP 404"), load(1.0, 0.0)])
def test_a_step_is_not_left_while_nothing_is_known(say: TaskLoad | None) -> None:
    judged = Judged()
    judged.go(60, say)
    assert running(judged.model) == ["1"] * 3 + ["2"]
    found = rollout(judged.model)
    assert found.check_state == UNKNOWN and found.check_message
    judged.go(30, load(0.0, 10.0))
    assert running(judged.model) == ["2"] * 4


def test_new_tasks_that_are_bad_for_a_while_go_back() -> None:
    judged = Judged()
    judged.go(4, load(0.0, 100.0))
    judged.go(3, load(5.0, 100.0))  # for a moment
    assert rollout(judged.model).check_state == BAD
    judged.go(2, load(0.0, 100.0))
    assert rollout(judged.model).check_state == GOOD and not rollout(judged.model).back_to
    judged = Judged()
    judged.go(BAD_MS_MAX // 1_000 + 10, load(5.0, 100.0))
    assert running(judged.model) == ["1"] * 4
    found = rollout(judged.model)
    assert found.back_to == 1 and "5% of requests, and may be 1%" in found.message


def test_the_last_step_is_watched_until_the_end() -> None:
    spec = checked(2)
    spec.update.CopyFrom(objects.UpdateConfig(parallelism=1, monitor_ms=60_000))
    model = deployed(checked(1))
    model.deploy(app_spec(web=spec))
    judged = Judged()
    judged.model = model
    judged.go(40, load(0.0, 100.0))
    assert running(model) == ["2"] * 4 and rollout(model).state == Rollout.STATE_GOING
    judged.go(30, load(50.0, 100.0))
    assert running(model) == ["1"] * 4


def test_a_number_is_of_a_task_on_average_and_all_new_tasks_must_be_known() -> None:
    judged = Judged(COUNT)
    judged.go(3, load(0.0))
    service = judged.model.service("web")
    tasks = judged.model.tasks()
    (fresh,) = [task for task in tasks if task.generation == service.generation]
    assert look_at(service, tasks, {fresh.meta.id: load(2.4)}).state == GOOD
    assert look_at(service, tasks, {fresh.meta.id: load(2.6)}).state == BAD
    other = objects.Task()
    other.CopyFrom(fresh)
    other.meta.id = "other"
    both = {fresh.meta.id: load(5.0), "other": load(0.0)}
    assert look_at(service, [*tasks, other], both).state == BAD - 1  # 2.5 on average
    unknown = look_at(service, [*tasks, other], {fresh.meta.id: load(0.0), "other": load(None, problem="HTTP 404")})
    assert unknown.state == UNKNOWN and "of 1 of 2 new tasks: HTTP 404" in unknown.message


def test_hosts_ask_only_while_a_version_comes_in() -> None:
    judged = Judged()
    assert [metric.name for frontend in frontends(judged.model.store) for metric in frontend.scraped] == [
        "errors",
        "requests",
    ]
    judged.go(40, load(0.0, 100.0))
    assert not any(frontend.scraped for frontend in frontends(judged.model.store))
    assert ScrapedValue(metric=key_of(ERRORS)).metric != key_of(REQUESTS)
