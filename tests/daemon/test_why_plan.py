"""Why a task is pending, what would help, and that it is placed once that was done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.errors import Refused
from daemon.orchestration.orchestrator import _relevant
from daemon.orchestration.why_plan import why
from proto import objects_pb2 as objects
from proto import why_pb2
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec, with_volume


def ask(model: ClusterModel, target: str) -> why_pb2.WhyReply:
    return why(model.store, why_pb2.WhyRequest(target=target), model.now_unix_ms)


def test_every_host_says_all_that_is_against_it_and_the_nearest_comes_first() -> None:
    model = ClusterModel()
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED)
    model.change_node("host-2", state=objects.NODE_STATE_DOWN, availability=objects.AVAILABILITY_CORDONED)
    model.deploy(app_spec(web=service_spec(replicas=2, resources=objects.Resources(memory_reserved_bytes=8 * GIB))))
    model.settle()
    (entry,) = ask(model, "web").tasks
    assert list(entry.tasks) == ["shop/web.1", "shop/web.2"]
    assert entry.state == objects.TASK_STATE_PENDING
    assert entry.reason.startswith("no host fits: ")
    assert [(host.node, [each.reason for each in host.against]) for host in entry.hosts] == [
        ("host-3", ["has less than 8 GiB of memory left to reserve (it has 4 GiB)"]),
        ("host-1", ["is cordoned", "has less than 8 GiB of memory left to reserve (it has 4 GiB)"]),
        ("host-2", ["is down", "is cordoned", "has less than 8 GiB of memory left to reserve (it has 4 GiB)"]),
    ]
    assert entry.hosts[1].against[0].remedy == "`fairway node activate host-1`"


def test_a_task_that_has_a_host_says_where() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec()))
    model.settle()
    (entry,) = ask(model, "shop/web.1").tasks
    assert (entry.node, entry.state, list(entry.hosts)) == ("host-1", objects.TASK_STATE_RUNNING, [])
    with pytest.raises(Refused, match="there is no task or service 'nothing'"):
        ask(model, "nothing")


def test_what_keeps_a_task_waiting_besides_hosts_is_said() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(image="other:1")))
    model.settle()
    (entry,) = ask(model, "web").tasks
    assert entry.reason.startswith("image other:1 is not in the cluster")
    assert not entry.hosts


def _labelled(model: ClusterModel) -> None:
    model.change_node("host-1", meta=objects.Meta(labels={"disk": "ssd"}))


def _activated(model: ClusterModel) -> None:
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)


def _grown(model: ClusterModel) -> None:
    model.change_node("host-1", description=objects.NodeDescription(memory_bytes=16 * GIB))


def _other_gone(model: ClusterModel) -> None:
    model.deploy(app_spec("other", big=service_spec(replicas=0, resources=_reserving(4 * GIB))))
    model.plan()
    while model.host_step():
        pass


def _joined(model: ClusterModel) -> None:
    model.add_node("host-2")


def _reserving(memory_bytes: int) -> objects.Resources:
    return objects.Resources(memory_reserved_bytes=memory_bytes)


@pytest.mark.parametrize(
    ("before", "spec", "change"),
    [
        (None, service_spec(constraints=["node.labels.disk == ssd"]), _labelled),
        (objects.AVAILABILITY_CORDONED, service_spec(), _activated),
        (None, service_spec(resources=_reserving(8 * GIB)), _grown),
        (None, service_spec(resources=_reserving(2 * GIB)), _other_gone),
        (None, service_spec(2, placement=objects.Placement(per_node_max=1)), _joined),
    ],
    ids=["label", "activated", "memory", "another task gone", "host joined"],
)
def test_a_pending_task_is_tried_again_at_once_when_what_blocked_it_changes(
    before: int | None, spec: objects.ServiceSpec, change: Callable[[ClusterModel], None]
) -> None:
    """The change wakes the orchestrator, and its next pass places the task."""
    model = ClusterModel(1)
    model.deploy(app_spec("other", big=service_spec(resources=_reserving(3 * GIB if change is _other_gone else 0))))
    model.settle()
    if before is not None:
        model.change_node("host-1", availability=before)
    model.deploy(app_spec(web=spec))
    for _ in range(3):  # no `settle`: nothing but the change may bring another look
        model.plan()
        model.host_step()
    assert [task for task in model.tasks("web") if not task.node_id]
    seen = len(model.batches)
    change(model)
    assert any(_relevant(batch) for batch in model.batches[seen:])
    model.plan()
    assert all(task.node_id for task in model.tasks("web"))
    assert all(entry.node for entry in ask(model, "web").tasks)


def test_a_task_that_a_drain_leaves_where_it_is_says_which_budget_keeps_it() -> None:
    model = ClusterModel(1)
    spec = with_volume(service_spec(), "data")
    spec.disruption_budget.available_min = 1
    model.deploy(app_spec(web=spec, volumes=["data"]))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    (entry,) = ask(model, "web").tasks
    assert entry.reason.startswith("web.1 stays on host-1 as yet: the disruption budget of shop/web is min_available 1")
