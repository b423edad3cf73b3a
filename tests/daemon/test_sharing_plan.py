"""Services whose tasks share namespaces of another one's: placed beside them, waiting for them, replaced with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.service_changes_plan import plan_scale
from daemon.errors import Refused
from daemon.orchestration.draft import Draft
from daemon.orchestration.move_plan import begin_move
from daemon.orchestration.rebalance_plan import left_alone
from daemon.orchestration.sharing_plan import GO_OVER_MS_MAX, KILLED
from daemon.orchestration.why_plan import why
from proto import objects_pb2 as objects
from proto import why_pb2
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec, with_volume

DRAINING, ACTIVE = objects.AVAILABILITY_DRAINING, objects.AVAILABILITY_ACTIVE


def beside(owner: str = "web", replicas: int = 1, *, processes: bool = True, **fields: Any) -> objects.ServiceSpec:
    spec = service_spec(replicas, **fields)
    spec.container.sharing.ipc = owner
    if processes:
        spec.container.sharing.processes = owner
    return spec


def changed(spec: objects.ServiceSpec, version: int) -> objects.ServiceSpec:
    spec.container.environment["VERSION"] = str(version)
    return spec


def deployed(replicas: int = 2, nodes: int = 3, *, processes: bool = True, **fields: Any) -> ClusterModel:
    model = ClusterModel(nodes)
    side = beside(replicas=replicas, processes=processes, **fields)
    model.deploy(app_spec(web=service_spec(replicas), side=side))
    model.settle()
    check_beside(model, replicas)
    return model


def check_beside(model: ClusterModel, replicas: int) -> None:
    """Each slot's two tasks share, on one host."""
    owners = {task.meta.id: task for task in model.serving("web")}
    sides = model.serving("side")
    assert len(sides) == len(owners) == replicas
    for task in sides:
        owner = owners[task.shares_with]
        assert (owner.slot, owner.node_id) == (task.slot, task.node_id)


def check_none_is_left(model: ClusterModel) -> None:
    """Nobody is to go on in namespaces of one who is not."""
    owners = {task.meta.id for task in model.alive("web")}
    assert all(task.shares_with in owners for task in model.alive("side") if task.node_id)


def course(model: ClusterModel, each: Callable[[], None], rounds_max: int = 80) -> None:
    """To its rest, with a look after each plan."""
    for _ in range(rounds_max):
        planned = model.plan()
        each()
        if not model.host_step() and not len(planned.builder) and planned.wake_at_unix_ms is None:
            return
        model.now_unix_ms += 500
    raise AssertionError("it does not come to rest")


def reason(model: ClusterModel, target: str) -> str:
    (entry,) = why(model.store, why_pb2.WhyRequest(target=target), model.now_unix_ms).tasks
    return entry.reason


def report(model: ClusterModel, task: objects.Task, state: objects.TaskState.ValueType, code: int = 0) -> None:
    ended = objects.Task()
    ended.CopyFrom(task)
    ended.status.state, ended.status.exit_code, ended.status.ready = state, code, False
    model.apply(TransactionBuilder().update(ended))


def test_each_task_is_where_the_one_of_its_slot_is_even_where_other_hosts_are_emptier() -> None:
    model = ClusterModel(3)
    full = service_spec(4, resources=objects.Resources(memory_reserved_bytes=GIB))
    model.deploy(app_spec("other", full=full))
    model.deploy(app_spec(web=service_spec(4), side=beside(replicas=4, constraints=[])))
    model.settle()
    check_beside(model, 4)


def test_it_waits_until_the_other_one_runs_and_says_so() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(2), side=beside(replicas=3)))
    model.plan()
    words = "web.1, whose processes and IPC it shares, does not run yet"
    assert [task.status.message for task in model.tasks("side") if task.slot == 1] == [words]
    assert reason(model, "side.1") == words
    model.settle()
    assert [task.slot for task in model.serving("side")] == [1, 2]
    assert reason(model, "side.3") == "there is no web.3, whose processes and IPC it shares"
    model.apply(plan_scale(model.store, model.service("web"), 3)[1])
    model.settle()
    check_beside(model, 3)


def test_a_host_without_room_beside_the_other_one_is_waited_for() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec(web=service_spec(), side=beside(resources=objects.Resources(memory_reserved_bytes=8 * GIB))))
    model.settle()
    host = model.hosts("web")[0]
    assert reason(model, "side") == f"{host}, which it is for, has less than 8 GiB of memory left to reserve"


@pytest.mark.parametrize("processes", [True, False])
def test_an_update_of_the_other_one_takes_it_along_and_both_serve_all_the_time(processes: bool) -> None:
    model = deployed(processes=processes)
    web, side = changed(service_spec(2), 2), beside(replicas=2, processes=processes)
    model.deploy(app_spec(web=web, side=side))

    def look() -> None:
        assert len({task.slot for task in model.serving("web")}) == 2
        assert len({task.slot for task in model.serving("side")}) == 2
        check_none_is_left(model)

    course(model, look)
    check_beside(model, 2)
    assert {task.spec.container.environment["VERSION"] for task in model.serving("web")} == {"2"}


def test_an_update_of_its_own_leaves_the_other_one_alone() -> None:
    model = deployed()
    before = {task.meta.id for task in model.serving("web")}
    model.deploy(app_spec(web=service_spec(2), side=changed(beside(replicas=2, processes=False), 2)))
    assert model.service("side").rollout.reason == "environment VERSION added: 2; processes shared with web -> none"
    course(model, lambda: check_none_is_left(model))
    check_beside(model, 2)
    assert {task.meta.id for task in model.serving("web")} == before


def test_both_change_at_once() -> None:
    model = deployed()
    model.deploy(app_spec(web=changed(service_spec(2), 2), side=changed(beside(replicas=2), 2)))
    course(model, lambda: check_none_is_left(model))
    check_beside(model, 2)
    assert {task.spec.container.environment["VERSION"] for task in model.serving("side")} == {"2"}


@pytest.mark.parametrize("code", [0, KILLED])
def test_the_end_of_the_other_one_replaces_it_at_once_and_counts_as_no_failure(code: int) -> None:
    model = deployed(1)
    (owner,), (side,) = model.serving("web"), model.serving("side")
    if code:  # the kernel ends it before the other one has ended
        report(model, side, objects.TASK_STATE_FAILED, code)
        planned = model.plan()
        assert [task.meta.id for task in model.tasks("side")] == [side.meta.id]
        assert planned.wake_at_unix_ms == model.now_unix_ms + 1_000
    report(model, owner, objects.TASK_STATE_FAILED, 1)
    model.plan()
    (fresh,) = (task for task in model.tasks("side") if task.meta.id != side.meta.id)
    assert (fresh.attempt, fresh.not_before_unix_ms, fresh.node_id) == (0, 0, "")
    old = next(task for task in model.tasks("side") if task.meta.id == side.meta.id)
    assert old.desired_message == "web.1, whose processes and IPC it shares, has ended"
    model.settle()
    check_beside(model, 1)


def test_a_task_that_is_killed_beside_one_that_runs_on_has_failed_by_itself() -> None:
    model = deployed(1)
    (side,) = model.serving("side")
    report(model, side, objects.TASK_STATE_FAILED, KILLED)
    model.plan()
    model.now_unix_ms += 1_000
    model.plan()
    (fresh,) = (task for task in model.tasks("side") if task.meta.id != side.meta.id)
    assert fresh.attempt == 1
    model.settle()
    check_beside(model, 1)


def test_a_drain_and_a_lost_host_take_it_along() -> None:
    model = deployed(2)
    host = model.hosts("web")[0]
    model.change_node(host, availability=DRAINING)

    def look() -> None:
        assert len({task.slot for task in model.serving("side")}) == 2
        check_none_is_left(model)

    course(model, look)
    check_beside(model, 2)
    assert host not in model.hosts()
    model.change_node(host, availability=ACTIVE)
    other = model.hosts("web")[0]
    model.change_node(other, state=objects.NODE_STATE_DOWN)
    course(model, lambda: check_none_is_left(model))
    check_beside(model, 2)
    assert other not in model.hosts()


def test_a_drain_takes_it_along_with_one_that_a_volume_ties() -> None:
    model = ClusterModel(2)
    web = with_volume(service_spec(), "data")
    model.deploy(app_spec(volumes=["data"], web=web, side=beside()))
    model.settle()
    (host,) = model.hosts("web")
    model.change_node(host, availability=DRAINING)
    model.settle()
    assert not model.hosts()
    model.change_node(host, availability=ACTIVE)
    model.settle()
    check_beside(model, 1)


def test_where_it_cannot_go_along_an_update_goes_on_without_it_after_a_while() -> None:
    model = deployed(1, nodes=1, resources=objects.Resources(memory_reserved_bytes=3 * GIB))
    model.deploy(
        app_spec(
            web=changed(service_spec(1), 2),
            side=beside(resources=objects.Resources(memory_reserved_bytes=3 * GIB)),
        )
    )
    began_unix_ms = model.now_unix_ms
    course(model, lambda: check_none_is_left(model), 200)
    assert model.now_unix_ms - began_unix_ms >= GO_OVER_MS_MAX
    check_beside(model, 1)
    assert model.serving("web")[0].spec.container.environment["VERSION"] == "2"


def test_its_budget_holds_against_moves_of_the_other_one() -> None:
    room = objects.Resources(memory_reserved_bytes=3 * GIB)
    model = ClusterModel(2)
    model.deploy(app_spec("other", full=service_spec(2, resources=objects.Resources(memory_reserved_bytes=GIB))))
    side = beside(resources=room, disruption_budget=objects.DisruptionBudget(available_min=1))
    model.deploy(app_spec(web=service_spec(), side=side))
    model.settle()
    check_beside(model, 1)
    (host,) = model.hosts("web")
    # There is room for web on the other host, and none for what goes with it.
    model.deploy(app_spec("more", full=service_spec(2, resources=room, constraints=[f"node.hostname != {host}"])))
    model.settle()
    model.change_node(host, availability=DRAINING)
    for _ in range(100):
        model.plan()
        model.host_step()
        model.now_unix_ms += 1_000
        assert len(model.serving("side")) == 1
        check_none_is_left(model)


def test_nothing_moves_it_by_itself() -> None:
    model = deployed()
    nodes = {node.meta.id: node for node in model.store.table(objects.Node)}

    def why_left(service: str) -> str:
        return left_alone(Draft(model.store, model.now_unix_ms, model.new_id), model.service(service), nodes)

    assert why_left("side") == "its tasks are where those of web are, whose processes and IPC they share"
    assert why_left("web") == ""
    reserving = beside(replicas=2, resources=objects.Resources(memory_reserved_bytes=1 << 20))
    model.deploy(app_spec(web=service_spec(2), side=reserving))
    model.settle()
    assert why_left("web") == "the tasks of side, which share its processes and IPC, may not fit elsewhere"


def test_a_move_of_the_other_one_takes_it_along() -> None:
    model = deployed(1, nodes=2)
    (owner,) = model.serving("web")
    target = next(node for node in model.store.table(objects.Node) if node.meta.id != owner.node_id)
    draft = Draft(model.store, model.now_unix_ms, model.new_id)
    begin_move(draft, model.service("web"), 1, target, "better balance")
    model.apply(draft.builder())

    def look() -> None:
        assert model.serving("web")
        assert model.serving("side")
        check_none_is_left(model)

    course(model, look)
    check_beside(model, 1)
    assert model.hosts() == [target.meta.name] * 2


def test_a_global_service_beside_another() -> None:
    model = ClusterModel(3)
    kind = objects.SERVICE_KIND_GLOBAL
    model.deploy(app_spec(web=service_spec(0, kind=kind), side=beside(replicas=0, kind=kind)))
    model.settle()
    check_beside(model, 3)


def test_a_volume_on_another_host_is_named() -> None:
    model = ClusterModel(2)
    side = with_volume(service_spec(constraints=["node.hostname == host-1"]), "data")
    model.deploy(app_spec(volumes=["data"], side=side))
    model.settle()
    web = service_spec(constraints=["node.hostname == host-2"])
    model.deploy(app_spec(volumes=["data"], web=web, side=with_volume(beside(), "data")))
    model.settle()
    words = "volume data is on host-1, and web.1, whose processes and IPC it shares, on host-2"
    assert reason(model, "side") == words


def _two(spec: objects.ServiceSpec) -> None:
    spec.container.sharing.ipc = "third"


def _sysctl(spec: objects.ServiceSpec) -> None:
    spec.container.sysctls["kernel.shmmax"] = "1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_two, "share the processes of web and the IPC of third: name one service"),
        (lambda spec: setattr(spec, "kind", objects.SERVICE_KIND_GLOBAL), "one of web and it has a task on each host"),
        (lambda spec: setattr(spec, "kind", objects.SERVICE_KIND_JOB), "tasks of jobs share"),
        (lambda spec: spec.stateful.SetInParent(), "its slots keep their hosts"),
        (lambda spec: setattr(spec.container.isolation, "runtime", "crun"), "its runtime is not that of web"),
        (lambda spec: setattr(spec.container.isolation, "user_namespace", True), "its userns_mode is not that of web"),
        (lambda spec: setattr(spec.precedence, "priority", 5), "its priority is above that of web"),
        (lambda spec: setattr(spec.container, "shm_size_bytes", 1 << 20), "say shm_size there"),
        (_sysctl, "set kernel.shmmax there"),
    ],
)
def test_what_cannot_be_is_refused(change: Callable[[objects.ServiceSpec], None], words: str) -> None:
    side, third = beside(), service_spec()
    change(side)
    with pytest.raises(Refused, match=words.replace("(", ".")):
        ClusterModel().deploy(app_spec(web=service_spec(), side=side, third=third))


def test_a_service_that_is_shared_cannot_be_left_out_and_none_shares_with_one_that_shares() -> None:
    model = deployed()
    with pytest.raises(Refused, match="it is to share the processes and IPC of service web, which is not in the app"):
        model.deploy(app_spec(side=beside()))
    with pytest.raises(Refused, match="which shares those of web: name that one"):
        model.deploy(app_spec(web=service_spec(), side=beside(), third=beside("side")))
    grouped = [service_spec(), beside()]
    for spec in grouped:
        spec.precedence.group = "ring"
    with pytest.raises(Refused, match="group ring starts at once"):
        model.deploy(app_spec(web=grouped[0], side=grouped[1]))
    waiting = service_spec()
    waiting.depends_on.add(service="side")
    with pytest.raises(Refused, match="wait for each other in a circle: side -> web -> side"):
        model.deploy(app_spec(web=waiting, side=beside()))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["web", "side", "both", "drain", "activate", "down", "up", "end web", "end side", "scale"]),
        st.integers(1, 3),
        st.integers(0, 3),  # rounds until the next one
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, processes=st.booleans())
def test_whatever_happens_nobody_is_left_alone_and_all_are_beside_theirs_in_the_end(
    steps: list[tuple[str, int, int]], processes: bool
) -> None:
    model = deployed(3, processes=processes)
    versions, replicas = {"web": 1, "side": 1}, 3
    for what, number, rounds in steps:
        host = f"host-{number}"
        match what:
            case "web" | "side" | "both":
                for name in versions:
                    versions[name] += what in (name, "both")
            case "scale":
                replicas = number
            case "drain" | "activate":
                model.change_node(host, availability=DRAINING if what == "drain" else ACTIVE)
            case "down" | "up":
                state = objects.NODE_STATE_DOWN if what == "down" else objects.NODE_STATE_READY
                model.change_node(host, state=state)
            case _:
                for task in model.serving(what.removeprefix("end "))[:number]:
                    report(model, task, objects.TASK_STATE_FAILED, KILLED)
        if what in ("web", "side", "both", "scale"):
            web = changed(service_spec(replicas), versions["web"])
            model.deploy(
                app_spec(web=web, side=changed(beside(replicas=replicas, processes=processes), versions["side"]))
            )
        for _ in range(rounds):
            model.plan()
            check_none_is_left(model)
            model.host_step()
            model.now_unix_ms += 700
    for number in (1, 2, 3):
        model.change_node(f"host-{number}", state=objects.NODE_STATE_READY, availability=ACTIVE)
    model.settle(200)
    check_beside(model, replicas)
