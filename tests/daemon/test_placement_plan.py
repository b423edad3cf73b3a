"""Bounds and affinities while tasks replace each other and hosts are drained."""

from __future__ import annotations

from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

BOUNDED = objects.Placement(per_node_max=1)
APART = objects.Placement(affinities=[objects.Affinity(service="web", anti=True, required=True)])


def test_an_update_needs_no_further_host_for_tasks_that_are_kept_apart() -> None:
    for placement in (BOUNDED, APART):
        model = ClusterModel()
        model.deploy(app_spec(web=service_spec(3, placement=placement)))
        model.settle()
        assert model.hosts("web") == ["host-1", "host-2", "host-3"]
        changed = service_spec(3, placement=placement)
        changed.container.environment["VERSION"] = "2"
        model.deploy(app_spec(web=changed))
        model.settle()
        assert model.hosts("web") == ["host-1", "host-2", "host-3"]
        assert all(task.spec.container.environment["VERSION"] == "2" for task in model.serving("web"))


def test_a_drain_ends_though_every_other_host_has_as_many_as_it_may() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=service_spec(3, placement=BOUNDED)))
    model.settle()
    model.change_node("host-2", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert model.hosts("web") == ["host-1", "host-3"]
    (pending,) = [task for task in model.alive("web") if not task.node_id]
    assert "as many as one host may have" in pending.status.message
    model.change_node("host-2", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert model.hosts("web") == ["host-1", "host-2", "host-3"]


def test_tasks_move_near_to_each_other_only_when_both_may_be_there() -> None:
    model = ClusterModel()
    near = objects.Placement(affinities=[objects.Affinity(service="web", required=True)])
    model.deploy(app_spec(web=service_spec(2, placement=BOUNDED), helper=service_spec(2, placement=near)))
    model.settle()
    assert set(model.hosts("helper")) <= set(model.hosts("web"))
    model.deploy(app_spec(web=service_spec(0, placement=BOUNDED), helper=service_spec(3, placement=near)))
    model.settle()
    (pending,) = [task for task in model.alive("helper") if not task.node_id]
    assert "no task of web" in pending.status.message
