"""Tenants' quotas: what counts, what waits and why, and that no plan goes beyond."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.quota_changes_plan import plan_remove_quota, plan_set_quota, quota_views
from daemon.errors import Kind, Refused
from daemon.orchestration.orchestrator import _relevant
from daemon.orchestration.task_states import ended
from daemon.orchestration.why_plan import why
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto import why_pb2
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec, with_volume

MIB = 1 << 20


def set_quota(model: ClusterModel, tenant: str = "default", unbound: tuple[str, ...] = (), **bounds: Any) -> None:
    request = control.SetQuotaRequest(tenant=tenant, quota=objects.Quota(**bounds), unbound=unbound)
    model.apply(plan_set_quota(model.store, request, model.new_id)[1])


def used(model: ClusterModel, tenant: str = "default") -> objects.Quota:
    return quota_views(model.store, tenant)[0].used


def waiting(model: ClusterModel) -> str:
    return "; ".join(sorted({task.status.message for task in model.alive() if not task.node_id}))


def web(replicas: int, **resources: Any) -> objects.ServiceSpec:
    return service_spec(replicas, resources=objects.Resources(**resources))


def test_tasks_beyond_the_quota_wait_and_say_what_would_be_enough() -> None:
    model = ClusterModel()
    set_quota(model, tasks=2)
    reply = model.deploy(app_spec(web=web(4)))
    assert [words for words in reply.warnings if "quota" in words] == [
        "the apps of tenant default ask for 4 tasks with this one, and its quota allows 2: some tasks will be pending"
    ]
    model.settle()
    assert len(model.serving()) == 2
    words = "the quota of tenant default allows 2 tasks: 2 are in use; `fairway quota set default --tasks 3`"
    assert waiting(model).startswith(words)
    entry = next(each for each in why(model.store, why_pb2.WhyRequest(target="web"), 0).tasks if not each.node)
    assert entry.reason.startswith(words)
    count = len(model.batches)
    set_quota(model, tasks=3)
    assert any(_relevant(batch) for batch in model.batches[count:]), "a plan follows at once"
    model.plan()
    assert len([task for task in model.alive() if task.node_id]) == 3


@pytest.mark.parametrize(
    ("bounds", "resources", "placed", "option"),
    [
        ({"cpu_reserved_millis": 1200}, {"cpu_reserved_millis": 500}, 2, "--cpu 1.5"),
        ({"memory_reserved_bytes": GIB}, {"memory_reserved_bytes": 300 * MIB}, 3, "--memory 1200M"),
    ],
)
def test_reservations_are_counted_exactly_and_the_remedy_is_enough(
    bounds: dict[str, Any], resources: dict[str, Any], placed: int, option: str
) -> None:
    model = ClusterModel()
    set_quota(model, **bounds)
    model.deploy(app_spec(web=web(placed + 1, **resources)))
    model.settle()
    assert len(model.serving()) == placed
    assert f"`fairway quota set default {option}` would be enough" in waiting(model)
    enough: dict[str, Any] = {name: resources[name] * (placed + 1) for name in bounds}
    set_quota(model, **enough)
    model.settle()
    assert len(model.serving()) == placed + 1


def test_an_update_and_a_drain_need_no_room_in_the_quota() -> None:
    model = ClusterModel()
    set_quota(model, tasks=3, memory_reserved_bytes=3 * 512 * MIB)
    model.deploy(app_spec(web=web(3, memory_reserved_bytes=512 * MIB)))
    model.settle()
    changed = web(3, memory_reserved_bytes=512 * MIB)
    changed.container.environment["VERSION"] = "2"
    model.deploy(app_spec(web=changed))
    model.settle()
    assert {task.generation for task in model.serving()} == {2}
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert len(model.serving()) == 3
    assert "host-1" not in model.hosts()


def test_both_sides_of_a_blue_green_change_count() -> None:
    model = ClusterModel()
    spec = service_spec(2)
    spec.rollout.strategy = objects.RolloutSpec.STRATEGY_BLUE_GREEN
    spec.rollout.keep_ms = 60_000
    set_quota(model, tasks=3)
    model.deploy(app_spec(web=spec))
    model.settle()
    changed = objects.ServiceSpec()
    changed.CopyFrom(spec)
    changed.container.environment["VERSION"] = "2"
    model.deploy(app_spec(web=changed))
    for _ in range(10):
        model.plan()
        model.host_step()
        model.now_unix_ms += 500
    assert used(model).tasks == 3
    assert "allows 3 tasks" in waiting(model)


def test_a_quota_below_what_is_in_use_stops_nothing_and_places_nothing() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web(3)))
    model.settle()
    before = {task.meta.id for task in model.serving()}
    set_quota(model, tasks=1)
    model.settle()
    assert {task.meta.id for task in model.serving()} == before
    model.deploy(app_spec(web=web(4)))
    model.settle()
    assert {task.meta.id for task in model.serving()} == before
    set_quota(model, unbound=("tasks",))
    model.settle()
    assert len(model.serving()) == 4


def test_tenants_do_not_use_each_others_quota() -> None:
    model = ClusterModel()
    set_quota(model, "team-a", tasks=1)
    theirs = app_spec("theirs", web=web(2))
    theirs.tenant = "team-a"
    model.deploy(theirs)
    model.deploy(app_spec("ours", web=web(2)))
    model.settle()
    assert (used(model, "team-a").tasks, used(model).tasks) == (1, 2)


def test_ports_and_volumes_are_refused_when_they_are_asked_for() -> None:
    model = ClusterModel()
    set_quota(model, published_ports=1, volumes=1)
    ports = [objects.PortSpec(protocol="tcp", target=80, published=port) for port in (8080, 8081)]
    with pytest.raises(
        Refused, match=re.escape("allows 1 published ports: 0 are in use, and there would be 2")
    ) as raised:
        model.deploy(app_spec(web=service_spec(ports=ports)))
    assert raised.value.kind == Kind.EXHAUSTED
    model.deploy(app_spec(web=service_spec(ports=ports[:1])))
    model.deploy(app_spec(other=service_spec(ports=ports[:1])))  # the port passes from one to the other
    with pytest.raises(Refused, match="allows 1 volume: 0 are there, and 2 more would be made"):
        model.deploy(app_spec("data", volumes=["a", "b"], db=with_volume(service_spec(), "a")))
    assert (used(model).published_ports, used(model).volumes) == (1, 0)


def test_a_slot_gets_no_volume_of_its_own_beyond_the_quota() -> None:
    model = ClusterModel()
    set_quota(model, volumes=3)
    stateful = with_volume(service_spec(3, stateful=objects.Stateful(unordered=True)), "data")
    model.deploy(app_spec(db=stateful, volumes=["data"]))
    model.settle()
    assert used(model).volumes == 3  # one is the pattern of the others
    assert len(model.serving()) == 2
    assert "allows 3 volumes: 3 are there, and 1 more would be made" in waiting(model)
    set_quota(model, volumes=4)
    model.settle()
    assert len(model.serving()) == 3


def test_what_a_quota_cannot_be_is_refused() -> None:
    model = ClusterModel()
    for request, said in (
        (control.SetQuotaRequest(tenant="No Name"), "cannot be the name of a tenant"),
        (control.SetQuotaRequest(tenant="a", quota=objects.Quota(cpu_reserved_millis=-1)), "cannot be negative"),
        (control.SetQuotaRequest(tenant="a", unbound=["fun"]), "nothing that a quota bounds"),
    ):
        with pytest.raises(Refused, match=said):
            plan_set_quota(model.store, request, model.new_id)
    with pytest.raises(Refused, match="there is no tenant"):
        plan_remove_quota(model.store, "nobody")
    set_quota(model, "a", tasks=1)
    model.apply(plan_remove_quota(model.store, "a")[1])
    with pytest.raises(Refused, match="has no quota"):
        plan_remove_quota(model.store, "a")


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["deploy", "deploy", "quota", "down", "up", "drain", "activate", "fail", "step", "step"]),
        st.sampled_from(["one", "two"]),
        st.integers(0, 6),
    ),
    max_size=25,
)


def _independent_use(model: ClusterModel) -> tuple[int, int, int]:
    """Counted by another road than the planner's: each slot's tasks on hosts, the largest of them."""
    slots: dict[Any, list[objects.Task]] = {}
    for task in model.tasks():
        if task.node_id and not ended(task):
            slots.setdefault((task.service_id, task.slot, task.run), []).append(task)
    cpu = sum(max(task.spec.resources.cpu_reserved_millis for task in tasks) for tasks in slots.values())
    memory = sum(max(task.spec.resources.memory_reserved_bytes for task in tasks) for tasks in slots.values())
    return len(slots), cpu, memory


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_no_plan_goes_beyond_the_quota(operations: list[tuple[str, str, int]]) -> None:
    model = ClusterModel()
    bounds = (4, 2000, 1024 * MIB)
    set_quota(model, tasks=4, cpu_reserved_millis=2000, memory_reserved_bytes=1024 * MIB)
    for operation, app, number in operations:
        host = f"host-{1 + number % 3}"
        match operation:
            case "deploy":
                resources = {"cpu_reserved_millis": 150 * number, "memory_reserved_bytes": 70 * number * MIB}
                model.deploy(app_spec(app, web=web(number, **resources), job=_job(number % 3)))
            case "quota":
                bounds = (number, 500 * number, 256 * number * MIB)
                set_quota(model, tasks=bounds[0], cpu_reserved_millis=bounds[1], memory_reserved_bytes=bounds[2])
            case "down" | "up":
                state = objects.NODE_STATE_DOWN if operation == "down" else objects.NODE_STATE_READY
                model.change_node(host, state=state)
            case "drain" | "activate":
                drained = operation == "drain"
                availability = objects.AVAILABILITY_DRAINING if drained else objects.AVAILABILITY_ACTIVE
                model.change_node(host, availability=availability)
            case "fail":
                model.fails = lambda task, slot=number: task.slot == slot  # type: ignore[misc]
        before = _independent_use(model)
        model.plan()
        for was, now, bound in zip(before, _independent_use(model), bounds, strict=True):
            assert now <= max(was, bound)
        if operation == "step":
            model.host_step()
            model.fails = lambda task: False
            model.now_unix_ms += 900


def _job(replicas: int) -> objects.ServiceSpec:
    spec = web(replicas, cpu_reserved_millis=300)
    spec.kind = objects.SERVICE_KIND_JOB
    return spec
