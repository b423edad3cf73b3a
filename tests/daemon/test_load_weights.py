"""Weights by load: who gets more, and how seldom anything is written."""

from __future__ import annotations

import os
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.host_view import HostView
from daemon.agent.load_agent import LoadAgent
from daemon.agent.reports import Reports
from daemon.agent.task_load import connections_of, cpu_seconds_of
from daemon.leader.endpoints_plan import endpoints
from daemon.leader.load_weights import FRESH_S_MAX, Loads
from daemon.leader.load_weights_plan import AVERAGE, HYSTERESIS, STEPS, plan_weights, step, weights
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState, TaskLoad
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

BY_LOAD = objects.Balance(policy=objects.BALANCE_POLICY_LEAST_LOADED)


def test_the_busier_a_task_the_smaller_its_weight_and_the_average_stays() -> None:
    found = weights({"idle": 0.0, "average": 10.0, "busy": 20.0, "unknown": None}, base=2.0)
    assert found["average"] == found["unknown"] == AVERAGE
    assert found["idle"] > 4 * AVERAGE > 2 * AVERAGE > AVERAGE > found["busy"]
    assert set(weights({"a": 0.0, "b": 0.0}, base=2.0).values()) == {AVERAGE}


@given(st.floats(0.1, 1000.0))
def test_a_weight_is_a_step_and_stays_while_it_is_near(wanted: float) -> None:
    weight = step(wanted, 0)
    assert weight in STEPS
    assert step(wanted, weight) in STEPS
    if STEPS[0] < wanted < STEPS[-1]:
        assert step(wanted, weight) == weight
        assert step(min(wanted, weight * (HYSTERESIS - 0.01)), weight) == weight


def test_least_loaded_tasks_get_more_and_a_steady_load_writes_nothing() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec(web=service_spec(2, balance=BY_LOAD), other=service_spec(1)))
    model.settle()
    first, second = model.serving("web")
    loads = {first.meta.id: TaskLoad(connections=40), second.meta.id: TaskLoad(connections=10)}
    model.apply(plan_weights(model.store, loads))
    found = {endpoint.task_id: endpoint.weight for endpoint in endpoints(model.store)}
    assert found[first.meta.id] < found[second.meta.id]
    assert found[model.serving("other")[0].meta.id] == 0
    assert len(plan_weights(model.store, loads)) == 0
    loads[first.meta.id].connections = 36
    loads[second.meta.id].connections = 11
    assert len(plan_weights(model.store, loads)) == 0
    # What hosts report of a task leaves its weight alone.
    model.unready = lambda task: task.meta.id == first.meta.id
    model.host_step()
    assert {endpoint.task_id: endpoint.weight for endpoint in endpoints(model.store)} == found


def test_by_cpu_connections_do_not_count() -> None:
    model = ClusterModel(1)
    balance = objects.Balance(policy=objects.BALANCE_POLICY_LEAST_LOADED, load=objects.LOAD_MEASURE_CPU)
    model.deploy(app_spec(web=service_spec(2, balance=balance)))
    model.settle()
    first, second = model.serving()
    loads = {
        first.meta.id: TaskLoad(connections=1, cpu_millis=900),
        second.meta.id: TaskLoad(connections=900, cpu_millis=100),
    }
    model.apply(plan_weights(model.store, loads))
    found = {endpoint.task_id: endpoint.weight for endpoint in endpoints(model.store)}
    assert found[first.meta.id] < found[second.meta.id]


def test_old_loads_do_not_count() -> None:
    now_s = [100.0]
    loads = Loads(lambda: now_s[0])
    loads.take([TaskLoad(task_id="a", connections=1)])
    now_s[0] += FRESH_S_MAX / 2
    loads.take([TaskLoad(task_id="b", connections=2)])
    assert sorted(loads.fresh()) == ["a", "b"]
    now_s[0] += FRESH_S_MAX * 0.75
    assert sorted(loads.fresh()) == ["b"]


def test_a_process_shows_its_connections_and_its_cpu_time() -> None:
    before = connections_of(os.getpid())
    assert before is not None
    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(50)]
        accepted = [server.accept()[0] for _ in clients]
        now = connections_of(os.getpid())
        for each in (*clients, *accepted):
            each.close()
    assert now is not None
    assert now - before >= 50  # others on this machine may end some of theirs meanwhile
    assert connections_of(2**22 + 1) is None
    used = cpu_seconds_of(os.getpid())
    if used is None:
        pytest.skip("this process's control group is not visible here")
    assert used >= 0


def test_a_host_measures_the_tasks_of_services_balanced_by_load_only() -> None:
    view, reports = HostView(), Reports()
    items = []
    for service, policy in (("busy", BY_LOAD), ("other", objects.Balance())):
        frontend = objects.Frontend(service_id=service, balance=policy)
        status = objects.TaskStatus(state=objects.TASK_STATE_RUNNING, pid=os.getpid())
        task = objects.Task(meta=objects.Meta(id=f"t-{service}"), service_id=service, status=status)
        items += [HostItem(key=f"frontend/{service}", frontend=frontend), HostItem(key=f"task/t-{service}", task=task)]
    view.apply(HostState(complete=True, revision=1, put=items))

    async def main() -> list[TaskLoad]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LoadAgent(view, reports).run)
            with trio.fail_after(60):
                while not (loads := list(reports.next().loads)):
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        return loads

    (load,) = trio.run(main)
    assert load.task_id == "t-busy"
