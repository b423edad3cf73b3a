"""Deploys: what changes, what it is called, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daemon.deploying.deploy_plan import plan_deploy, plan_remove_app, plan_remove_node, plan_scale, plan_update_node
from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec, with_volume

Action = control.ServiceChange


def web(**fields: Any) -> objects.ServiceSpec:
    return service_spec(2, **fields)


def published(port: int) -> objects.ServiceSpec:
    return web(ports=[objects.PortSpec(protocol="tcp", target=80, published=port)])


def change(reply: control.PlanAppReply, service: str) -> control.ServiceChange:
    return next(one for one in reply.changes if one.service == service)


def ports(model: ClusterModel) -> dict[str, str]:
    names = {service.meta.id: service.meta.name for service in model.store.table(objects.Service)}
    return {
        lease.meta.name: names[lease.holder_id]
        for lease in model.store.table(objects.Lease)
        if lease.kind == objects.Lease.KIND_PUBLISHED_PORT
    }


def test_a_first_deploy_creates_everything_and_the_same_again_changes_nothing() -> None:
    model = ClusterModel()
    app = app_spec(volumes=["data"], web=published(8080), db=with_volume(web(), "data"))
    reply = model.deploy(app)
    assert {one.service: one.action for one in reply.changes} == {"db": Action.CREATE, "web": Action.CREATE}
    assert list(reply.networks_created) == ["default"]
    assert list(reply.volumes_created) == ["data"]
    assert model.service("web").vip.startswith("10.120.")
    assert model.store.table(objects.Tenant).unique("name", "default") is not None
    versions = {service.meta.version for service in model.store.table(objects.Service)}
    again = model.deploy(app)
    assert {one.action for one in again.changes} == {Action.UNCHANGED}
    assert {service.meta.version for service in model.store.table(objects.Service)} == versions
    (stored,) = model.store.table(objects.App)
    assert stored.generation == 2


def test_changes_are_named_and_counted() -> None:
    model = ClusterModel()
    before = web()
    before.container.environment.update({"LOG": "info", "DB_PASSWORD": "one", "OLD": "x"})
    before.resources.memory_limit_bytes = 128 * 1024**2
    model.deploy(app_spec(web=before, api=web(), gone=web()))
    after = web(image="web:2")
    after.container.environment.update({"LOG": "debug", "DB_PASSWORD": "two", "NEW": "y"})
    after.resources.memory_limit_bytes = 256 * 1024**2
    reply = model.deploy(app_spec(web=after, api=service_spec(5)))
    updated = change(reply, "web")
    assert updated.action == Action.UPDATE
    assert updated.tasks_replaced == 2
    assert list(updated.reasons) == [
        "image web:1 -> web:2",
        "environment DB_PASSWORD changed",
        "environment LOG: info -> debug",
        "environment NEW added: y",
        "environment OLD removed",
        "memory limit 128 MiB -> 256 MiB",
    ]
    assert change(reply, "api").action == Action.SCALE
    assert change(reply, "gone").action == Action.REMOVE
    assert model.service("web").generation == 2
    assert model.service("api").generation == 1
    assert model.service("gone").removing


def test_every_field_of_a_service_is_compared() -> None:
    changes: list[Callable[[objects.ServiceSpec], object]] = [
        lambda spec: spec.container.command.values.append("run"),
        lambda spec: spec.container.entrypoint.SetInParent(),
        lambda spec: setattr(spec.container, "user", "1000"),
        lambda spec: setattr(spec.container, "read_only", True),
        lambda spec: setattr(spec.container, "stop_grace_ms", 5),
        lambda spec: spec.container.cap_add.append("NET_ADMIN"),
        lambda spec: spec.container.mounts.add(kind=objects.Mount.KIND_TMPFS, target="/tmp"),
        lambda spec: spec.container.healthcheck.test.append("CMD"),
        lambda spec: spec.constraints.append("node.role == voter"),
        lambda spec: setattr(spec.restart, "delay_ms", 7),
        lambda spec: spec.ports.add(protocol="tcp", target=80),
        lambda spec: spec.network_aliases["default"].values.append("www"),
        lambda spec: setattr(spec.resources, "pids_limit", 9),
        lambda spec: spec.container.dns_servers.append("192.0.2.1"),
        lambda spec: spec.container.dns_search.append("example.com"),
        lambda spec: spec.container.dns_options.append("rotate"),
        lambda spec: spec.container.extra_hosts.add(name="db", address="192.0.2.7"),
    ]
    for number, alter in enumerate(changes):
        model = ClusterModel(1)
        model.deploy(app_spec(web=web()))
        altered = web()
        alter(altered)
        reply = model.deploy(app_spec(web=altered))
        assert len(change(reply, "web").reasons) == 1, number
        assert model.service("web").generation == 2, number


def test_newer_content_of_the_same_image_replaces_tasks() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web()))
    model.load_image("docker.io/library/web:1", "c")
    reply = model.deploy(app_spec(web=web()))
    assert list(change(reply, "web").reasons) == ["image content changed (aaaaaaaaaaaa -> cccccccccccc)"]
    model.settle()
    assert {task.image_digest for task in model.serving()} == {"sha256:" + "c" * 64}


def test_a_published_port_has_one_service_and_can_pass_on_within_a_deploy() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=published(8080), api=web()))
    with pytest.raises(Refused) as refused:
        model.deploy(app_spec("other", www=published(8080)))
    assert refused.value.kind is Kind.CONFLICT
    assert "port 8080/tcp: it is published by service shop/web already" in refused.value.message
    model.deploy(app_spec(web=web(), api=published(8080)))
    assert ports(model) == {"port/tcp/8080": "api"}
    model.deploy(app_spec(web=published(8080)))
    assert ports(model) == {"port/tcp/8080": "web"}
    model.settle()
    assert ports(model) == {"port/tcp/8080": "web"}
    model.deploy(app_spec(web=published(8081)))
    assert ports(model) == {"port/tcp/8081": "web"}


def test_networks_are_deleted_when_their_last_task_is_gone() -> None:
    model = ClusterModel()
    app = app_spec(web=web())
    app.services["web"].networks[:] = ["front"]
    app.networks["front"].internal = True
    model.deploy(app)
    model.settle()
    (network,) = model.store.table(objects.Network)
    assert network.internal
    assert network.ordinal == 1
    reply = model.deploy(app_spec(web=web()))
    assert list(reply.networks_removed) == ["front"]
    model.plan()
    assert len(model.store.table(objects.Network)) == 2
    model.settle()
    assert [one.meta.name for one in model.store.table(objects.Network)] == ["default"]
    assert len([x for x in model.store.table(objects.Lease) if x.kind == objects.Lease.KIND_NETWORK_ORDINAL]) == 1


def test_volumes_that_are_being_removed_hold_up_a_deploy() -> None:
    model = ClusterModel()
    app = app_spec(volumes=["data"], db=with_volume(web(), "data"))
    model.deploy(app)
    model.settle()
    model.apply(plan_remove_app(model.store, control.RemoveAppRequest(app="shop", volumes=True), 0)[1])
    with pytest.raises(Refused, match="being removed with its volumes"):
        model.deploy(app)
    model.settle()
    model.deploy(app)


def circle() -> control.AppSpec:
    return app_spec(
        a=web(depends_on=[objects.Dependency(service="b")]), b=web(depends_on=[objects.Dependency(service="a")])
    )


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (app_spec("Shop", web=web()), "'Shop' cannot be the name of the app"),
        (app_spec("shop"), "has no service"),
        (app_spec(web=web(image="UPPER CASE")), "service web: image 'UPPER CASE'"),
        (app_spec(web=web(constraints=["node.disk == ssd"])), "there is no key 'node.disk'"),
        (app_spec(web=with_volume(web(), "data")), "volume data is not defined"),
        (app_spec(web=web(depends_on=[objects.Dependency(service="db")])), "depends on service db"),
        (app_spec(web=published(80), www=published(80)), "web and www both publish port 80/tcp"),
        (app_spec(web=published(70000)), "outside of 1 to 65535"),
        (circle(), "in a circle: a -> b -> a"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(app: control.AppSpec, words: str) -> None:
    model = ClusterModel()
    revision = model.store.revision
    with pytest.raises(Refused) as refused:
        model.deploy(app)
    assert words in refused.value.message
    assert model.store.revision == revision


def test_more_than_any_host_has_is_a_warning_and_then_a_pending_reason() -> None:
    model = ClusterModel()
    resources = objects.Resources(memory_reserved_bytes=64 * GIB)
    reply = model.deploy(app_spec(web=web(resources=resources)))
    assert "it reserves 64 GiB of memory, and no host has more than 4 GiB" in reply.warnings[0]
    model.plan()
    assert "less than 64 GiB of memory left to reserve (the most is 4 GiB)" in model.tasks()[0].status.message


def test_a_plan_changes_nothing() -> None:
    model = ClusterModel()
    revision = model.store.revision
    plan_deploy(model.store, app_spec(web=web()), 0, model.new_id)
    assert model.store.revision == revision


def test_scaling_what_is_being_removed_is_refused() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web()))
    model.apply(plan_remove_app(model.store, control.RemoveAppRequest(app="shop"), 0)[1])
    with pytest.raises(Refused, match="is being removed"):
        plan_scale(model.store, model.service("web"), 1)


def test_labels_and_availability_of_a_node() -> None:
    model = ClusterModel()
    request = control.UpdateNodeRequest(node="host-1", set_labels={"disk": "ssd"})
    node, builder = plan_update_node(model.store, request)
    model.apply(builder)
    assert node.meta.labels["disk"] == "ssd"
    assert node.availability == objects.AVAILABILITY_ACTIVE
    request = control.UpdateNodeRequest(
        node="host-1", remove_labels=["disk"], availability=objects.AVAILABILITY_CORDONED
    )
    model.apply(plan_update_node(model.store, request)[1])
    with pytest.raises(Refused, match="has no label 'disk'"):
        plan_update_node(model.store, control.UpdateNodeRequest(node="host-1", remove_labels=["disk"]))
    with pytest.raises(Refused, match="there is no node"):
        plan_update_node(model.store, control.UpdateNodeRequest(node="host-9"))


def test_a_node_in_use_or_with_data_is_removed_only_by_force() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec(volumes=["data"], db=with_volume(service_spec(), "data"), web=web()))
    model.settle()
    home = model.hosts("db")[0]
    request = control.RemoveNodeRequest(node=home)
    with pytest.raises(Refused, match="is in use"):
        plan_remove_node(model.store, request)
    model.change_node(home, availability=objects.AVAILABILITY_DRAINING)
    with pytest.raises(Refused, match="still runs 2 tasks"):
        plan_remove_node(model.store, request)
    model.settle()
    with pytest.raises(Refused, match="holds the data of volume shop/data"):
        plan_remove_node(model.store, request)
    message, builder = plan_remove_node(model.store, control.RemoveNodeRequest(node=home, force=True))
    assert "begin empty elsewhere" in message
    model.apply(builder)
    model.settle()
    assert len(model.serving()) == 3
    assert all(task.node_id != f"node-{home}" for task in model.alive())


def test_ipv6_of_a_network_needs_a_cluster_that_has_it() -> None:
    model = ClusterModel(1)  # without
    app = app_spec(web=service_spec(1))
    app.networks["default"].ipv6_wanted_line = 12
    with pytest.raises(Refused, match=r"networks\.default\.enable_ipv6 \(line 12\).* has no IPv6"):
        model.deploy(app)
    app.networks["default"].ipv6_wanted_line = 0
    app.networks["default"].ipv6_disabled = True
    model.deploy(app)
    [network] = model.store.table(objects.Network)
    assert network.ipv6_disabled
    app.networks["default"].ipv6_disabled = False
    model.deploy(app)
    [network] = model.store.table(objects.Network)
    assert not network.ipv6_disabled
