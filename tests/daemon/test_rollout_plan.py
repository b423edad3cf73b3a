"""Updates: one ready task at a time, never one less serving, halted by a new version that fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.service_changes_plan import plan_scale
from daemon.orchestration.rollout_plan import IMAGE_WAIT_MS_MAX
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume

BAD = "BAD"


def version(number: int, replicas: int = 3, **fields: Any) -> objects.ServiceSpec:
    spec = service_spec(replicas, **fields)
    spec.container.environment["VERSION"] = str(number)
    return spec


def bad(spec: objects.ServiceSpec) -> objects.ServiceSpec:
    spec.container.environment[BAD] = "yes"
    return spec


def is_bad(task: objects.Task) -> bool:
    return BAD in task.spec.container.environment


def running(model: ClusterModel) -> list[str]:
    return sorted(task.spec.container.environment["VERSION"] for task in model.serving())


def deployed(spec: objects.ServiceSpec, nodes: int = 3) -> ClusterModel:
    model = ClusterModel(nodes)
    model.fails = is_bad
    model.deploy(app_spec(web=spec))
    model.settle()
    return model


def test_an_update_replaces_one_task_after_the_other_and_never_serves_with_fewer() -> None:
    model = deployed(version(1))
    model.deploy(app_spec(web=version(2)))
    seen = []
    for _ in range(40):
        planned = model.plan()
        assert len(model.serving()) >= 3
        assert len(model.alive()) <= 4
        if not model.host_step() and not len(planned.builder) and planned.wake_at_unix_ms is None:
            break
        seen.append(running(model).count("2"))
        model.now_unix_ms += 600
    assert running(model) == ["2", "2", "2"]
    assert seen == sorted(seen)


def test_the_next_task_waits_until_the_new_one_has_been_ready_for_a_moment() -> None:
    model = deployed(version(1))
    model.deploy(app_spec(web=version(2)))
    model.plan()
    model.host_step()
    planned = model.plan()
    assert len(planned.builder) == 0
    assert planned.wake_at_unix_ms == model.now_unix_ms + 1_000
    model.now_unix_ms += 1_000
    assert len(model.plan().builder) > 0


def test_a_new_version_that_fails_halts_the_update_and_the_old_one_goes_on() -> None:
    model = deployed(version(1))
    model.deploy(app_spec(web=bad(version(2))))
    for _ in range(30):
        model.plan()
        model.host_step()
        model.now_unix_ms += 700
        assert running(model) == ["1", "1", "1"]
    assert len({task.slot for task in model.tasks() if is_bad(task)}) == 1
    # An old task that is lost meanwhile is replaced by the old version.
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    model.plan()
    model.host_step()
    assert running(model) == ["1", "1", "1"]
    # The way out: deploy what works.
    model.deploy(app_spec(web=version(3)))
    model.settle()
    assert running(model) == ["3", "3", "3"]


def test_a_service_that_was_broken_is_updated_everywhere_at_once() -> None:
    model = ClusterModel()
    model.fails = is_bad
    model.deploy(app_spec(web=bad(version(1, 6))))
    for _ in range(5):
        model.plan()
        model.host_step()
        model.now_unix_ms += 700
    model.deploy(app_spec(web=version(2, 6)))
    model.plan()
    model.host_step()
    model.plan()
    model.host_step()
    assert running(model) == ["2"] * 6


def test_tasks_with_a_volume_end_before_their_successors_start() -> None:
    model = ClusterModel()
    spec = with_volume(version(1, 1), "data")
    model.deploy(app_spec(volumes=["data"], web=spec))
    model.settle()
    home = model.hosts()[0]
    model.deploy(app_spec(volumes=["data"], web=with_volume(version(2, 1), "data")))
    for _ in range(20):
        model.plan()
        live = [task for task in model.tasks() if task.address]
        assert len(live) <= 1
        model.host_step()
        model.now_unix_ms += 600
    assert running(model) == ["2"]
    assert model.hosts() == [home]


def test_tasks_with_a_volume_are_not_stopped_for_an_image_that_is_not_there() -> None:
    model = ClusterModel()
    model.deploy(app_spec(volumes=["data"], web=with_volume(version(1, 1), "data")))
    model.settle()
    after = with_volume(version(2, 1, image="web:2"), "data")
    model.deploy(app_spec(volumes=["data"], web=after))
    model.settle()
    assert running(model) == ["1"]
    model.load_image("docker.io/library/web:2", "b")
    model.settle()
    assert running(model) == ["2"]


@pytest.mark.parametrize("with_data", [True, False])
def test_a_task_that_stops_first_serves_until_its_host_has_the_new_image(with_data: bool) -> None:
    model = ClusterModel()

    def app(number: int, image: str) -> control.AppSpec:
        spec = version(number, 1, image=image)
        if with_data:
            return app_spec(volumes=["data"], web=with_volume(spec, "data"))
        spec.update.CopyFrom(objects.UpdateConfig(parallelism=1, order=objects.UPDATE_ORDER_STOP_FIRST))
        return app_spec(web=spec)

    model.deploy(app(1, "web:1"))
    model.settle()
    (home,) = {task.node_id for task in model.tasks()}
    holders = ["node-elsewhere"]
    for number, comes in ((2, True), (3, False)):
        model.load_image(f"docker.io/library/web:{number}", str(number), node_ids=holders)
        model.deploy(app(number, f"web:{number}"))
        before = model.now_unix_ms
        for _ in range(5):
            model.plan()
            model.host_step()
            model.now_unix_ms += 600
        assert running(model) == [str(number - 1)]
        if comes:
            model.load_image(f"docker.io/library/web:{number}", str(number), node_ids=[*holders, home])
        else:
            model.now_unix_ms = before + IMAGE_WAIT_MS_MAX  # its disk may be full
        model.settle()
        assert running(model) == [str(number)]


def test_replicas_and_labels_replace_no_task() -> None:
    model = deployed(version(1))
    before = {task.meta.id for task in model.serving()}
    app = app_spec(web=version(1, 4))
    app.service_labels["web"].values["team"] = "blue"
    model.deploy(app)
    model.settle()
    assert before < {task.meta.id for task in model.serving()}
    assert len(model.serving()) == 4


def test_a_host_that_takes_tasks_again_while_others_drain_ends_the_moves() -> None:
    """Each pass made a task in place of one on a draining host, and ended it as one that was not needed."""
    model = deployed(version(0))
    model.change_node("host-2", availability=objects.AVAILABILITY_DRAINING)
    model.plan()
    model.host_step()
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    model.plan()
    model.change_node("host-2", availability=objects.AVAILABILITY_ACTIVE)
    for _ in range(3):
        model.plan()
    assert not len(model.plan().builder)
    model.settle()
    assert len(model.serving()) == 3 and "host-1" not in model.hosts("web")


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["deploy", "deploy bad", "scale", "down", "up", "drain", "activate", "step", "step"]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_whatever_happens_the_cluster_comes_to_rest_as_it_was_asked_for(
    operations: list[tuple[str, int]],
) -> None:
    model = deployed(version(0))
    replicas = 3
    for number, (operation, value) in enumerate(operations, 1):
        node = f"host-{value % 3 + 1}"
        match operation:
            case "deploy":
                replicas = value
                model.deploy(app_spec(web=version(number, value)))
            case "deploy bad":
                replicas = value
                model.deploy(app_spec(web=bad(version(number, value))))
            case "scale":
                replicas = value
                model.apply(plan_scale(model.store, model.service("web"), value)[1])
            case "down":
                model.change_node(node, state=objects.NODE_STATE_DOWN)
            case "up":
                model.change_node(node, state=objects.NODE_STATE_READY)
            case "drain":
                model.change_node(node, availability=objects.AVAILABILITY_DRAINING)
            case "activate":
                model.change_node(node, availability=objects.AVAILABILITY_ACTIVE)
            case "step":
                model.plan()
                model.host_step()
                model.now_unix_ms += value * 300
        passes = 1
        while len(model.plan().builder):
            passes += 1
            assert passes < 10, "passes go on finding something to do though nothing happened"
        check_invariants(model)
    for number in (1, 2, 3):
        model.change_node(f"host-{number}", state=objects.NODE_STATE_READY, availability=objects.AVAILABILITY_ACTIVE)
    model.deploy(app_spec(web=version(99, replicas)))
    model.settle()
    check_invariants(model)
    assert running(model) == ["99"] * replicas
    assert [task.slot for task in model.alive()] == list(range(1, replicas + 1))


def check_invariants(model: ClusterModel) -> None:
    leases = {
        lease.meta.name.removeprefix("address/"): lease.holder_id
        for lease in model.store.table(objects.Lease)
        if lease.kind == objects.Lease.KIND_TASK_ADDRESS
    }
    held = {task.address: task.meta.id for task in model.tasks() if task.address}
    assert leases == held
    for task in model.alive():
        assert task.slot <= model.service("web").spec.replicas
    for slot in {task.slot for task in model.alive()}:  # one on each host that drains, and what waits for another host
        assert len([task for task in model.alive() if task.slot == slot]) <= 4
