"""What hosts are told: complete states and the changes between them agree, and noise wakes up nobody."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.api.events_plan import events_of
from daemon.deploying.service_changes_plan import plan_remove_app, plan_scale
from daemon.leader.endpoints_plan import endpoints, frontends
from daemon.leader.host_state_plan import HostStates
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume


def items(state: HostState) -> dict[str, HostItem]:
    return {item.key: item for item in state.put}


def apply(known: dict[str, HostItem], state: HostState) -> None:
    known.update(items(state))
    for key in state.removed_keys:
        del known[key]


def test_a_host_gets_the_common_part_and_its_own_tasks() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec(volumes=["data"], db=with_volume(service_spec(), "data"), web=service_spec(3)))
    model.settle()
    known = items(HostStates(model.store).complete("node-host-1"))
    kinds = [key.partition("/")[0] for key in known]
    own = [task for task in model.tasks() if task.node_id == "node-host-1"]
    assert kinds.count("task") == len(own) == 2
    assert kinds.count("endpoint") == 4
    assert kinds.count("node") == kinds.count("frontend") == 2
    assert not known["cluster/cluster"].cluster.ca_private_key_sealed
    assert not known["node/node-host-1"].node.description.fairway_version


def test_a_stopped_task_is_withdrawn_at_once_and_forgotten_when_gone() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    (task,) = model.tasks()
    states = HostStates(model.store)
    model.batches.clear()
    model.apply(plan_scale(model.store, model.service("web"), 0)[1])
    model.plan()
    deltas = [states.advance(batch) for batch in model.batches]
    changed = [item.endpoint for delta in deltas for item in delta.common.put if item.HasField("endpoint")]
    assert [(endpoint.task_id, endpoint.ready) for endpoint in changed] == [(task.meta.id, False)]
    model.batches.clear()
    model.settle()
    deltas = [states.advance(batch) for batch in model.batches]
    assert [key for delta in deltas for key in delta.common.removed_keys] == [f"endpoint/{task.meta.id}"]
    own = [delta.per_node.get("node-host-1", HostState()) for delta in deltas]
    assert [key for state in own for key in state.removed_keys] == [f"task/{task.meta.id}", f"log/{task.meta.id}"]


def test_a_host_keeps_the_log_of_a_task_until_the_cluster_forgets_it() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    (task,) = model.tasks()
    states = HostStates(model.store)
    complete = states.complete("node-host-1")
    assert complete.names_logs
    known = items(complete)
    model.batches.clear()
    updated = service_spec(1)
    updated.container.hostname = "other"
    model.deploy(app_spec(web=updated))
    model.settle()
    for batch in model.batches:
        apply(known, states.advance(batch).per_node.get("node-host-1", HostState()))
    assert f"log/{task.meta.id}" in known
    assert f"task/{task.meta.id}" not in known
    model.batches.clear()
    model.apply(plan_scale(model.store, model.service("web"), 0)[1])
    model.settle()
    for batch in model.batches:
        apply(known, states.advance(batch).per_node.get("node-host-1", HostState()))
    assert not [key for key in known if key.startswith("log/")]


def test_the_state_of_a_node_wakes_up_nobody_but_takes_its_endpoints() -> None:
    model = ClusterModel(2)
    states = HostStates(model.store)
    model.batches.clear()
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED, state_message="x")
    (batch,) = model.batches
    delta = states.advance(batch)
    assert not delta.common.put
    assert not delta.common.removed_keys
    assert delta.per_node == {}
    model.deploy(app_spec(web=service_spec(2)))
    model.settle()
    states = HostStates(model.store)
    model.batches.clear()
    model.change_node("host-2", state=objects.NODE_STATE_DOWN)
    delta = states.advance(model.batches[0])
    assert [key.partition("/")[0] for key in delta.common.removed_keys] == ["endpoint", "endpoint"]
    assert len(list(endpoints(model.store))) == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("dsnmxrp"), st.integers(0, 4)), max_size=12))
def test_changes_add_up_to_the_complete_state(operations: list[tuple[str, int]]) -> None:
    model = ClusterModel(2)
    states = HostStates(model.store)
    nodes = ["node-host-1", "node-host-2"]
    known = {node: items(states.complete(node)) for node in nodes}
    model.batches.clear()
    for operation, value in operations:
        match operation:
            case "d":
                model.deploy(
                    app_spec(volumes=["v"], web=with_volume(service_spec(value), "v"), api=service_spec(value))
                )
            case "s":
                model.deploy(app_spec(api=service_spec(value, image="web:2")))
            case "n":
                state = objects.NODE_STATE_DOWN if value % 2 else objects.NODE_STATE_READY
                model.change_node("host-1", state=state)
            case "m":
                model.load_image(f"docker.io/library/web:{value}", "abcde"[value])
            case "x":
                model.change_node("host-2", network=objects.NodeNetwork(tunnel_mac=f"02:{value}"))
            case "r":
                for app in model.store.table(objects.App):
                    model.apply(plan_remove_app(model.store, control.RemoveAppRequest(app=app.meta.name), 0)[1])
            case "p":
                model.plan()
                model.host_step()
                model.now_unix_ms += value * 500
        for batch in model.batches:
            events_of(batch)  # total: no change is beyond words
            deltas = states.advance(batch)
            for node in nodes:
                apply(known[node], deltas.common)
                if node in deltas.per_node:
                    apply(known[node], deltas.per_node[node])
        model.batches.clear()
        fresh = HostStates(model.store)
        for node in nodes:
            assert known[node] == items(fresh.complete(node)) == items(states.complete(node))


def test_a_service_without_a_network_has_no_frontend() -> None:
    model = ClusterModel(1)
    spec = service_spec(1)
    del spec.networks[:]
    model.deploy(app_spec(web=spec))
    model.settle()
    assert list(frontends(model.store)) == []
    assert list(endpoints(model.store)) == []
    assert len(model.serving()) == 1
