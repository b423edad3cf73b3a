"""Disruption budgets: what they require, what they hold back, and that no plan takes away more than they allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.api.control_views import service_view
from daemon.errors import Refused
from daemon.orchestration.budget_plan import budget_text, required_slots, standing_of
from daemon.orchestration.task_states import serving
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume

Budget = objects.DisruptionBudget


def stateful(replicas: int = 3, **bound: Any) -> objects.ServiceSpec:
    spec = service_spec(replicas, stateful=objects.Stateful(unordered=True))
    spec.disruption_budget.CopyFrom(Budget(**bound))
    return with_volume(spec, "data")


def deployed(spec: objects.ServiceSpec, hosts: int = 3) -> ClusterModel:
    model = ClusterModel(hosts)
    model.deploy(app_spec(db=spec, volumes=["data"]))
    model.settle()
    assert len(model.serving("db")) == hosts
    return model


def drain(model: ClusterModel, *hosts: str, availability: int = objects.AVAILABILITY_DRAINING) -> None:
    for host in hosts:
        model.change_node(host, availability=availability)


def said(model: ClusterModel) -> str:
    return "; ".join(service_view(model.store, model.service("db")).pending_reasons)


@pytest.mark.parametrize(
    ("budget", "wanted", "required", "text"),
    [
        (Budget(), 3, 0, ""),
        (Budget(unavailable_max=1), 3, 2, "max_unavailable 1"),
        (Budget(unavailable_max=0), 3, 3, "max_unavailable 0"),
        (Budget(unavailable_max=5), 3, 0, "max_unavailable 5"),
        (Budget(unavailable_max_millionths=250_000), 3, 2, "max_unavailable 25%"),
        (Budget(unavailable_max_millionths=250_000), 8, 6, "max_unavailable 25%"),
        (Budget(available_min=2), 3, 2, "min_available 2"),
        (Budget(available_min_millionths=500_000), 3, 2, "min_available 50%"),
        (Budget(available_min_millionths=12_500), 3, 1, "min_available 1.25%"),
    ],
)
def test_a_budget_requires_so_many_slots(
    budget: objects.DisruptionBudget, wanted: int, required: int, text: str
) -> None:
    assert required_slots(budget, wanted) == required
    assert budget_text(budget) == text


def test_two_hosts_drained_at_once_give_up_tied_tasks_one_after_the_other() -> None:
    model = deployed(stateful(unavailable_max=1))
    drain(model, "host-1", "host-2")
    model.settle()
    assert len(model.serving("db")) == 2
    waits = said(model)
    assert "the disruption budget of shop/db is max_unavailable 1, 2 of 3 tasks are ready, and 2 must stay so" in waits
    home = next(host for host in ("host-1", "host-2") if host in model.hosts("db"))
    other = "host-2" if home == "host-1" else "host-1"
    assert f"stays on {home} as yet" in waits
    drain(model, other, availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert home not in [model.node_of(task).meta.name for task in model.serving("db")]
    assert len(model.serving("db")) == 2


def test_without_a_budget_they_go_at_once() -> None:
    model = deployed(with_volume(service_spec(3, stateful=objects.Stateful(unordered=True)), "data"))
    drain(model, "host-1", "host-2")
    model.settle()
    assert len(model.serving("db")) == 1


def test_a_host_that_is_lost_counts() -> None:
    model = deployed(stateful(available_min=2))
    model.change_node("host-3", state=objects.NODE_STATE_DOWN)
    model.settle()
    drain(model, "host-1")
    model.settle()
    assert len(model.serving("db")) == 2
    assert "host-1" in said(model)


def test_a_global_service_leaves_one_draining_host_at_a_time() -> None:
    spec = service_spec(kind=objects.SERVICE_KIND_GLOBAL)
    spec.disruption_budget.unavailable_max = 1
    model = deployed(spec)
    drain(model, "host-1", "host-2")
    model.settle()
    assert len(model.serving("db")) == 2
    drain(model, "host-1", "host-2", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert len(model.serving("db")) == 3


def test_tasks_that_are_replaced_first_move_whatever_the_budget_says() -> None:
    spec = service_spec(3)
    spec.disruption_budget.unavailable_max = 0
    model = deployed(spec)
    drain(model, "host-1")
    for _ in range(30):
        model.plan()
        assert len(model.serving("db")) >= 3
        model.host_step()
        model.now_unix_ms += 600
    assert "host-1" not in model.hosts("db")


def test_changing_a_budget_replaces_no_task() -> None:
    model = deployed(stateful(unavailable_max=1))
    before = {task.meta.id for task in model.alive()}
    reply = model.deploy(app_spec(db=stateful(available_min=1), volumes=["data"]))
    assert list(reply.changes[0].reasons) == ["disruption budget max_unavailable 1 -> min_available 1"]
    model.settle()
    assert {task.meta.id for task in model.alive()} == before


def test_what_a_budget_must_not_be_is_refused_and_what_surprises_is_said() -> None:
    model = ClusterModel()
    job = service_spec(kind=objects.SERVICE_KIND_JOB)
    job.disruption_budget.unavailable_max = 1
    with pytest.raises(Refused, match="it is a job"):
        model.deploy(app_spec(db=job))
    with pytest.raises(Refused, match="more than 100%"):
        model.deploy(app_spec(db=stateful(available_min_millionths=2_000_000), volumes=["data"]))
    reply = model.deploy(app_spec(db=stateful(available_min=3), volumes=["data"]))
    assert any("min_available 3 of 3 tasks" in words for words in reply.warnings)


KINDS = ["stateful", "stateful", "global", "global", "bound", "plain"]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["drain", "drain", "activate", "down", "up", "unready", "step", "step"]), st.integers(1, 4)
    ),
    max_size=25,
)
BOUNDS = st.sampled_from(
    [
        {"unavailable_max": 0},
        {"unavailable_max": 1},
        {"unavailable_max_millionths": 400_000},
        {"available_min": 2},
        {"available_min_millionths": 500_000},
    ]
)


def _of_kind(kind: str, bound: dict[str, int]) -> objects.ServiceSpec:
    if kind == "stateful":
        return stateful(4, **bound)
    spec = service_spec(kind=objects.SERVICE_KIND_GLOBAL) if kind == "global" else service_spec(4)
    if kind == "bound":
        spec.placement.per_node_max = 1
    spec.disruption_budget.CopyFrom(Budget(**bound))
    return spec


def _available(model: ClusterModel) -> set[int]:
    """Slots with a ready task on a host that is not down."""
    return {
        task.slot
        for task in model.tasks("db")
        if serving(task) and model.node_of(task).state != objects.NODE_STATE_DOWN
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), BOUNDS, OPERATIONS)
def test_no_plan_takes_away_more_than_the_budget_allows(
    kind: str, bound: dict[str, int], operations: list[tuple[str, int]]
) -> None:
    model = ClusterModel(4)
    model.deploy(app_spec(db=_of_kind(kind, bound), volumes=["data"]))
    model.settle()
    for operation, number in operations:
        host = f"host-{number}"
        match operation:
            case "drain":
                model.change_node(host, availability=objects.AVAILABILITY_DRAINING)
            case "activate":
                model.change_node(host, availability=objects.AVAILABILITY_ACTIVE)
            case "down" | "up":
                down = operation == "down"
                model.change_node(host, state=objects.NODE_STATE_DOWN if down else objects.NODE_STATE_READY)
            case "unready":
                slot = number
                model.unready = lambda task, slot=slot: task.slot == slot  # type: ignore[misc]
        before = _available(model)
        model.plan()
        after = _available(model)
        nodes = {node.meta.id: node for node in model.store.table(objects.Node)}
        standing = standing_of(model.service("db"), model.tasks("db"), nodes)
        assert not before - after or len(after) >= standing.required
        if operation == "step":
            model.unready = lambda task: False
            model.host_step()
            model.now_unix_ms += 700
