"""An operator's restart: all of a service by its rollout, or one slot; and what a stop says of what follows."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.api.control_hands import what_follows
from daemon.api.inspecting import inspect
from daemon.deploying.restart_changes_plan import RESTARTED, plan_restart
from daemon.errors import Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec


def restart(model: ClusterModel, target: str) -> control.RestartReply:
    reply, builder = plan_restart(model.store, target, model.now_unix_ms)
    model.apply(builder)
    return reply


def deployed(**fields: Any) -> tuple[ClusterModel, control.AppSpec]:
    model, app = ClusterModel(), app_spec(web=service_spec(3, **fields))
    model.deploy(app)
    model.settle()
    return model, app


def test_a_service_gets_new_tasks_one_after_the_other_and_always_serves() -> None:
    model, app = deployed()
    before = {task.meta.id for task in model.alive("web")}
    assert restart(model, "shop/web").task_name == ""
    for _ in range(40):
        model.plan()
        model.host_step()
        assert len(model.serving("web")) >= 3
        model.now_unix_ms += 500
    model.settle()
    after = {task.meta.id for task in model.alive("web")}
    assert len(after) == 3 and not before & after
    assert model.service("web").rollout.reason == RESTARTED

    changes = model.deploy(app).changes  # the same file again knows nothing of the restart, and replaces nothing
    model.settle()
    assert changes[0].action == control.ServiceChange.UNCHANGED
    assert {task.meta.id for task in model.alive("web")} == after

    restart(model, "web")
    model.settle()
    assert not after & {task.meta.id for task in model.alive("web")}


def test_one_task_is_replaced_and_the_others_stay_whatever_the_policy_says() -> None:
    never = objects.RestartPolicy(condition=objects.RestartPolicy.CONDITION_NONE)
    model, _ = deployed(restart=never)
    before = {task.meta.name: task.meta.id for task in model.alive("web")}
    assert restart(model, "web.2").task_name == "web.2"
    model.settle()
    after = {task.meta.name: task.meta.id for task in model.alive("web")}
    assert sorted(after) == ["web.1", "web.2", "web.3"]
    assert [name for name in after if after[name] != before[name]] == ["web.2"]


def test_what_cannot_be_restarted_is_refused_with_what_to_do() -> None:
    model, _ = deployed()
    with pytest.raises(Refused, match="no task or service 'nope'"):
        restart(model, "nope")
    job = service_spec(1, kind=objects.SERVICE_KIND_JOB)
    model.deploy(app_spec("jobs", report=job))
    with pytest.raises(Refused, match="fairway trigger jobs/report"):
        restart(model, "jobs/report")
    model.deploy(app_spec("other", web=service_spec(1)))
    with pytest.raises(Refused, match="other/web, shop/web"):
        restart(model, "web")


@pytest.mark.parametrize(
    ("condition", "exit_code", "words"),
    [
        (objects.RestartPolicy.CONDITION_ANY, 0, "another one follows in 500 ms"),
        (objects.RestartPolicy.CONDITION_ON_FAILURE, 143, "another one follows"),
        (objects.RestartPolicy.CONDITION_ON_FAILURE, 0, "asks for no other; `fairway restart shop/web.1`"),
        (objects.RestartPolicy.CONDITION_NONE, 143, "asks for no other"),
    ],
)
def test_a_stop_says_what_the_restart_policy_does(
    condition: objects.RestartPolicy.Condition.ValueType, exit_code: int, words: str
) -> None:
    model, _ = deployed(restart=objects.RestartPolicy(condition=condition))
    task = model.tasks("web")[0]
    task.status.state, task.status.exit_code = objects.TASK_STATE_EXITED, exit_code
    task.status.started_unix_ms, task.status.finished_unix_ms = 1_000, 100_000
    assert words in what_follows(task, model.service("web"), 100_000)


def test_inspect_gives_whole_objects_without_what_is_secret() -> None:
    model, _ = deployed()
    cluster = next(iter(model.store.table(objects.Cluster)))
    changed = objects.Cluster()
    changed.CopyFrom(cluster)
    changed.ca_private_key_sealed = b"sealed"
    model.apply(TransactionBuilder().update(changed))
    assert inspect(model.store, control.InspectRequest(kind="service", name="shop/web")).services[0].generation == 1
    assert len(inspect(model.store, control.InspectRequest(kind="task", name="web")).tasks) == 3
    assert inspect(model.store, control.InspectRequest(kind="image", name="web:1")).images[0].manifest_digest
    assert inspect(model.store, control.InspectRequest(kind="network", name="shop/default")).networks
    assert not inspect(model.store, control.InspectRequest(kind="cluster")).clusters[0].ca_private_key_sealed
    with pytest.raises(Refused, match="there are app, cluster, config"):
        inspect(model.store, control.InspectRequest(kind="pod", name="x"))
    with pytest.raises(Refused, match="no volume 'x'"):
        inspect(model.store, control.InspectRequest(kind="volume", name="x"))
