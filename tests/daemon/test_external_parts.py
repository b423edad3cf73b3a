"""Networks and volumes of other apps: found by their names, kept while used, refused where they are not there."""

from __future__ import annotations

import pytest

from daemon.deploying.deploy_plan import plan_remove_app
from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import frontend_of
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume


def owner(name: str = "", volume_name: str = "") -> control.AppSpec:
    """App shop with a network and a volume."""
    app = app_spec("shop", volumes=["data"], db=with_volume(service_spec(), "data"))
    app.networks["default"].shared_name = name
    app.volumes["data"].shared_name = volume_name
    return app


def guest(network: str = "shop_default", volume: str = "") -> control.AppSpec:
    """App guest, on a network (and with a volume) that it calls external."""
    spec = service_spec(2)
    if volume:
        spec = with_volume(spec, "theirs")
    app = app_spec("guest", volumes=["theirs"] if volume else [], api=spec)
    app.services["api"].networks.append("shared")
    app.networks["shared"].external, app.networks["shared"].shared_name = True, network
    if volume:
        app.volumes["theirs"].external, app.volumes["theirs"].shared_name = True, volume
    return app


def remove(model: ClusterModel, app: str, volumes: bool = False) -> None:
    request = control.RemoveAppRequest(app=app, volumes=volumes)
    model.apply(plan_remove_app(model.store, request, model.now_unix_ms)[1])


def network(model: ClusterModel, app: str, name: str = "default") -> objects.Network:
    return next(one for one in model.store.table(objects.Network) if (one.app, one.meta.name) == (app, name))


def test_tasks_are_on_the_network_of_the_other_app_and_on_their_own() -> None:
    model = ClusterModel()
    model.deploy(owner())
    reply = model.deploy(guest())
    assert list(reply.networks_created) == ["default"]
    model.settle()
    both = {network(model, "guest").meta.id, network(model, "shop").meta.id}
    assert [set(task.networks) for task in model.serving("api")] == [both, both]
    frontend = frontend_of(model.store, model.service("api"))
    assert frontend is not None
    assert set(frontend.networks) == both
    versions = {one.meta.version for one in model.store.table(objects.Service)}
    model.deploy(guest())
    assert {one.meta.version for one in model.store.table(objects.Service)} == versions


def test_a_name_of_its_own_takes_the_place_of_the_usual_one() -> None:
    model = ClusterModel()
    model.deploy(owner("front", "store"))
    with pytest.raises(Refused, match=r"no app has a network 'shop_default' \(there are front\)") as refused:
        model.deploy(guest())
    assert refused.value.kind is Kind.NOT_FOUND
    model.deploy(guest("front", "store"))
    model.deploy(owner("back"))
    with pytest.raises(Refused, match="'front'"):
        model.deploy(guest("front"))
    other = app_spec("other", web=service_spec())
    other.networks["default"].shared_name = "back"
    with pytest.raises(Refused, match=r"cannot be named 'back': that is default of app shop") as clash:
        model.deploy(other)
    assert clash.value.kind is Kind.CONFLICT


def test_a_volume_of_another_app_binds_tasks_to_its_host() -> None:
    model = ClusterModel()
    model.deploy(owner())
    model.settle()
    model.deploy(guest(volume="shop_data"))
    model.settle()
    (holder,) = model.hosts("db")
    assert set(model.hosts("api")) == {holder}
    assert len(model.store.table(objects.Volume)) == 1
    api = guest(volume="shop_data")
    api.services["api"].kind = objects.SERVICE_KIND_GLOBAL
    with pytest.raises(Refused, match="volumes of its own for each task"):
        model.deploy(api)


def test_what_is_used_elsewhere_stays_until_it_is_not() -> None:
    model = ClusterModel()
    model.deploy(owner())
    model.deploy(guest(volume="shop_data"))
    model.settle()
    for volumes in (False, True):
        with pytest.raises(Refused, match=r"service guest/api uses its network shop_default") as refused:
            remove(model, "shop", volumes)
        assert refused.value.kind is Kind.NOT_POSSIBLE
    # The app's own file no longer names the network: who uses it keeps it.
    less = owner()
    less.services["db"].networks[:] = ["other"]
    less.networks["other"].SetInParent()
    assert list(model.deploy(less).networks_removed) == []
    model.settle()
    assert network(model, "shop").meta.id in model.service("api").spec.external_networks.values()
    remove(model, "guest")
    model.settle()
    assert {one.meta.name for one in model.store.table(objects.Network)} == {"other"}
    remove(model, "shop", True)
    model.settle()
    for kind in (objects.Network, objects.Volume, objects.App, objects.Lease):
        assert len(model.store.table(kind)) == 0, kind


def test_an_app_whose_services_went_one_by_one_stays_while_its_network_is_used() -> None:
    model = ClusterModel()
    model.deploy(owner())
    model.deploy(guest())
    model.settle()
    stored = objects.Service()
    stored.CopyFrom(model.service("db"))
    stored.removing = True
    model.apply(TransactionBuilder().update(stored))
    model.settle()
    assert {app.meta.name for app in model.store.table(objects.App)} == {"shop", "guest"}
    assert len(model.serving("api")) == 2
    remove(model, "guest")
    model.settle()
    assert len(model.store.table(objects.App)) == 0


def test_two_networks_of_one_name_cannot_be_told_apart() -> None:
    model = ClusterModel()
    for app, name in (("a", "b_c"), ("a_b", "c")):
        spec = app_spec(app, web=service_spec())
        spec.services["web"].networks[:] = [name]
        spec.networks[name].SetInParent()
        model.deploy(spec)
    with pytest.raises(Refused, match=r"a and a_b have a network 'a_b_c' each"):
        model.deploy(guest("a_b_c"))
