"""The data of a removed app's volumes goes on every host that has it, whenever that hears of it, and no other does."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from daemon.agent.host_view import HostView
from daemon.agent.reports import Reports
from daemon.agent.volume_agent import VolumeAgent
from daemon.deploying.deploy_plan import plan_remove_app
from daemon.errors import Refused
from daemon.leader.report_plan import plan_reports
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostReport, HostState
from storage.volumes import LocalVolumes
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume


def with_app() -> tuple[ClusterModel, objects.Volume]:
    """An app with a volume that a host holds."""
    model = ClusterModel(3)
    model.deploy(app_spec(volumes=["data"], db=with_volume(service_spec(1), "data")))
    model.settle()
    (volume,) = model.store.table(objects.Volume)
    return model, volume


def remove(model: ClusterModel) -> None:
    request = control.RemoveAppRequest(app="shop", volumes=True)
    model.apply(plan_remove_app(model.store, request, model.now_unix_ms)[1])


def test_a_volume_is_forgotten_when_its_host_says_that_the_data_is_gone() -> None:
    model, volume = with_app()
    remove(model)
    for _ in range(4):
        model.plan()
        others = [node.meta.name for node in model.store.table(objects.Node) if node.meta.id != volume.node_id]
        model.host_step(only=others)
        model.now_unix_ms += 2_000
    assert not any(each.discard for each in model.store.table(objects.Volume)), "its task may write to it still"
    model.settle()
    assert not model.store.table(objects.Volume) and not model.store.table(objects.App)


def test_a_host_that_is_down_does_it_when_it_is_back() -> None:
    model, volume = with_app()
    name = next(node.meta.name for node in model.store.table(objects.Node) if node.meta.id == volume.node_id)
    model.change_node(name, state=objects.NODE_STATE_DOWN)
    remove(model)
    model.settle()
    assert [each.meta.id for each in model.store.table(objects.Volume)] == [volume.meta.id]
    assert len(model.store.table(objects.App)) == 1
    model.change_node(name, state=objects.NODE_STATE_READY)
    model.settle()
    assert not model.store.table(objects.Volume) and not model.store.table(objects.App)


def test_a_host_is_believed_only_about_volumes_of_its_own_that_are_to_go() -> None:
    model, volume = with_app()
    report = HostReport(volumes_discarded=[volume.meta.id])
    assert not len(plan_reports(model.store, [(volume.node_id, report)], model.now_unix_ms))
    remove(model)
    while not any(each.discard for each in model.store.table(objects.Volume)):
        model.plan()
        if any(each.discard for each in model.store.table(objects.Volume)):
            break
        model.host_step()
    other = next(node.meta.id for node in model.store.table(objects.Node) if node.meta.id != volume.node_id)
    assert not len(plan_reports(model.store, [(other, report)], model.now_unix_ms))
    assert len(plan_reports(model.store, [(volume.node_id, report)], model.now_unix_ms)) == 1


def test_a_host_deletes_what_the_cluster_says_and_leaves_what_only_vanishes(tmp_path: Path) -> None:
    async def body() -> None:
        volumes, view, reports = LocalVolumes(tmp_path), HostView(), Reports()
        agent = VolumeAgent(volumes, view, reports)
        for name in ("kept", "gone"):
            await volumes.ensure(name, "shop", name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)

            def tell(**state: object) -> None:
                view.apply(HostState(**state))  # type: ignore[arg-type]
                agent.changed()

            both = [_item("kept"), _item("gone")]
            tell(complete=True, revision=1, put=both)
            tell(revision=2, put=[_item("gone", discard=True)], removed_keys=["volume/kept"])
            with trio.fail_after(60):
                await reports.wait()
            assert reports.next().volumes_discarded == ["gone"]
            assert [each.id for each in await volumes.list()] == ["kept"]
            assert not reports.next().volumes_discarded and reports.first("").volumes_discarded == ["gone"]
            tell(revision=3, removed_keys=["volume/gone"])
            with trio.fail_after(60):
                await reports.wait()
            assert not reports.first("").volumes_discarded
            nursery.cancel_scope.cancel()

    trio.run(body)


def _item(name: str, discard: bool = False) -> HostItem:
    volume = objects.Volume(meta=objects.Meta(id=name, name=name), app="shop", removing=discard, discard=discard)
    return HostItem(key=f"volume/{name}", volume=volume)


def test_what_an_app_had_goes_though_the_app_is_back_without_it() -> None:
    model, _ = with_app()
    remove(model)
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    assert not model.store.table(objects.Volume)
    assert [service.meta.name for service in model.store.table(objects.Service)] == ["web"]


def test_the_name_is_free_when_what_slots_had_of_it_is_gone() -> None:
    model = ClusterModel(3)
    spec = with_volume(service_spec(2, stateful=objects.Stateful()), "data")
    model.deploy(app_spec(volumes=["data"], db=spec))
    model.settle()
    slots = {volume.meta.name: volume.node_id for volume in model.store.table(objects.Volume)}
    assert set(slots) == {"data", "data.1", "data.2"}
    down = model.store.get(objects.Node, slots["data.2"])
    assert down is not None
    model.change_node(down.meta.name, state=objects.NODE_STATE_DOWN)
    remove(model)
    model.settle()
    assert {volume.meta.name for volume in model.store.table(objects.Volume)} >= {"data", "data.2"}
    with pytest.raises(Refused, match="deploy it again when volume data is gone"):
        model.deploy(app_spec(volumes=["data"], db=spec))
    model.change_node(down.meta.name, state=objects.NODE_STATE_READY)
    model.settle()
    model.deploy(app_spec(volumes=["data"], db=spec))
