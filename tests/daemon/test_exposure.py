"""Published ports, balancing and floating addresses: what is refused, who holds what, what hosts are told."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.agent.host_view import HostView
from daemon.agent.network_view import NetworkView
from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import endpoints, frontends
from daemon.leader.host_state_plan import HostStates
from daemon.orchestration.leases import FLOATING_PREFIX
from daemon.orchestration.task_states import ended
from net.features import HOST_NETWORK
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

HOST, INGRESS = objects.PortSpec.MODE_HOST, objects.PortSpec.MODE_INGRESS
ADDRESS = "198.51.100.77"


def port(published: int, host_ip: str = "", mode: objects.PortSpec.Mode.ValueType = INGRESS) -> objects.PortSpec:
    return objects.PortSpec(protocol="tcp", target=80, published=published, host_ip=host_ip, mode=mode)


def web(*ports: objects.PortSpec, replicas: int = 1, **fields: Any) -> objects.ServiceSpec:
    return service_spec(replicas, ports=ports, **fields)


def balance(policy: objects.BalancePolicy.ValueType, **fields: Any) -> objects.Balance:
    return objects.Balance(policy=policy, **fields)


def action(reply: control.PlanAppReply) -> tuple[int, int, list[str]]:
    (change,) = reply.changes
    return change.action, change.tasks_replaced, list(change.reasons)


def refused(model: ClusterModel, spec: objects.ServiceSpec, app: str = "other") -> Refused:
    with pytest.raises(Refused) as caught:
        model.deploy(app_spec(app, web=spec))
    return caught.value


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (port(80), port(80), True),
        (port(80), port(80, "192.0.2.1"), True),
        (port(80, "192.0.2.1"), port(80), True),
        (port(80, "192.0.2.1"), port(80, "192.0.2.2"), False),
        (port(80, mode=HOST), port(80), True),
        (port(80), port(80, mode=HOST), True),
        (port(80, mode=HOST), port(80, mode=HOST), False),
        (port(80), port(81), False),
    ],
)
def test_which_ports_of_two_services_clash(first: objects.PortSpec, second: objects.PortSpec, clash: bool) -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web(first)))
    if clash:
        error = refused(model, web(second))
        assert error.kind is Kind.CONFLICT
        assert "published by service shop/web already" in error.message
    else:
        model.deploy(app_spec("other", web=web(second)))
    both = app_spec("both", one=web(first), two=web(second))
    if clash:
        with pytest.raises(Refused, match="both publish port 80/tcp"):
            ClusterModel().deploy(both)
    else:
        ClusterModel().deploy(both)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (web(port(80), endpoint_mode=objects.ENDPOINT_MODE_DNSRR), "dnsrr does not do: use mode host"),
        (web(port(80, "::1")), "over IPv4 only; use 127.0.0.1"),
        (web(port(80, "here")), "'here', which is not an IP address"),
        (web(port(80), port(80, "192.0.2.1")), "port 80/tcp at 192.0.2.1 is published twice"),
        (web(balance=balance(objects.BALANCE_POLICY_WEIGHTED)), "balanced by weight and has no weights"),
        (
            web(balance=objects.Balance(weights=[objects.HostWeight(constraint="size = big", weight=2)])),
            "constraint 'size = big' cannot be used",
        ),
        (web(floating_addresses=["127.0.0.1"]), "cannot be an address that moves"),
        (web(floating_addresses=["10.112.3.4"]), "is in 10.112.0.0/13, the cluster's own"),
        (web(floating_addresses=["192.0.2.2"]), "is the address of host host-2 and cannot float"),
    ],
)
def test_what_cannot_be_is_refused_in_words(spec: objects.ServiceSpec, words: str) -> None:
    assert words in refused(ClusterModel(), spec).message


def test_balancing_and_endpoint_mode_change_without_new_tasks() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web(replicas=2)))
    model.settle()
    before = [task.meta.id for task in model.serving()]
    assert model.service("web").vip
    reply = model.deploy(
        app_spec(
            web=web(
                replicas=2,
                balance=balance(objects.BALANCE_POLICY_SOURCE_HASH, local_first=True),
                endpoint_mode=objects.ENDPOINT_MODE_DNSRR,
            )
        )
    )
    words = ["balancing random -> source-hash, local first", "endpoint mode vip -> dnsrr"]
    assert action(reply) == (control.ServiceChange.UPDATE, 0, words)
    model.settle()
    assert [task.meta.id for task in model.serving()] == before
    assert not model.service("web").vip
    (frontend,) = frontends(model.store)
    assert not frontend.vip
    assert frontend.balance.local_first


def test_two_tasks_with_a_port_of_their_host_never_share_one_and_say_so() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=web(port(80, mode=HOST), replicas=4)))
    model.deploy(app_spec("other", api=web(port(80, mode=HOST))))
    model.settle()
    assert model.hosts("web") == ["host-1", "host-2", "host-3"]
    waiting = [task.status.message for task in model.alive() if not task.node_id]
    assert waiting == ["no host fits: host-1, host-2 and host-3 have port 80/tcp taken by another task"] * 2
    model.deploy(app_spec(web=web(port(80, mode=HOST), replicas=2)))
    model.settle()
    assert model.hosts("api") == ["host-3"]


def test_a_drain_stops_a_task_whose_port_no_other_host_has_free_and_it_comes_back() -> None:
    model = ClusterModel(3)
    model.deploy(app_spec(web=web(port(80, mode=HOST), replicas=3), other=web(replicas=1)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert model.hosts("web") == ["host-2", "host-3"]
    (waiting,) = [task for task in model.alive("web") if not task.node_id]
    assert "host-2 and host-3 have port 80/tcp taken by another task; host-1 is draining" in waiting.status.message
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert model.hosts("web") == ["host-1", "host-2", "host-3"]


def test_sctp_goes_where_the_kernel_has_it() -> None:
    model = ClusterModel()
    for name in ("host-1", "host-2"):
        model.change_node(name, description=objects.NodeDescription(lacks=["SCTP"]))
    model.deploy(app_spec(web=web(objects.PortSpec(protocol="sctp", target=9, published=9), replicas=2)))
    model.settle()
    assert model.hosts() == ["host-3", "host-3"]
    model.change_node("host-3", description=objects.NodeDescription(lacks=["SCTP"]))
    model.deploy(app_spec("other", api=web(objects.PortSpec(protocol="sctp", target=10), replicas=1)))
    model.settle()
    (waiting,) = model.alive("api")
    assert waiting.status.message == "no host fits: host-1, host-2 and host-3 have a kernel without SCTP"


def test_what_shares_its_hosts_network_is_on_no_other_and_keeps_the_hosts_settings() -> None:
    model = ClusterModel()
    spec = service_spec(2, container=objects.ContainerSpec(host_network=True))
    del spec.networks[:]
    model.change_node("host-1", description=objects.NodeDescription(lacks=[HOST_NETWORK]))
    model.deploy(app_spec(agent=spec))
    model.settle()
    assert "host-1" not in model.hosts("agent") and len(model.hosts("agent")) == 2
    for change, words in (
        (objects.ServiceSpec(networks=["default"]), "cannot be on networks of the cluster"),
        (objects.ServiceSpec(container=objects.ContainerSpec(sysctls={"net.core.somaxconn": "9"})), "not its own"),
        (objects.ServiceSpec(container=objects.ContainerSpec(dns_servers=["192.0.2.1"])), "leave out dns"),
        (objects.ServiceSpec(ports=[objects.PortSpec(protocol="tcp", target=1, published=1)]), "has no network"),
    ):
        other = objects.ServiceSpec()
        other.CopyFrom(spec)
        other.MergeFrom(change)
        with pytest.raises(Refused, match=words):
            model.deploy(app_spec("other", agent=other))


def test_an_update_lets_go_of_a_port_where_no_other_host_has_it_free() -> None:
    model = ClusterModel(2)
    for number in (1, 2):
        spec = web(port(80, mode=HOST), replicas=2)
        spec.container.environment["VERSION"] = str(number)
        model.deploy(app_spec(web=spec))
        for _ in range(60):
            planned = model.plan()
            assert number == 1 or len(model.serving()) >= 1
            by_host = [task.node_id for task in model.tasks() if task.node_id and not ended(task)]
            assert len(by_host) == len(set(by_host))
            if not model.host_step() and not len(planned.builder) and planned.wake_at_unix_ms is None:
                break
            model.now_unix_ms += 1_100
    assert [task.spec.container.environment["VERSION"] for task in model.serving()] == ["2", "2"]


def test_weights_follow_the_labels_of_hosts() -> None:
    model = ClusterModel(2)
    big = objects.HostWeight(constraint="node.labels.size == big", weight=3)
    model.deploy(app_spec(web=web(replicas=2, balance=balance(objects.BALANCE_POLICY_WEIGHTED, weights=[big]))))
    model.settle()
    assert [endpoint.weight for endpoint in endpoints(model.store)] == [1, 1]
    states = HostStates(model.store)
    model.batches.clear()
    model.change_node("host-2", meta=objects.Meta(labels={"size": "big", "zone": "b"}))
    (changed,) = [item.endpoint for item in states.advance(model.batches[0]).common.put if item.HasField("endpoint")]
    assert (changed.node_id, changed.weight, changed.zone) == ("node-host-2", 3, "b")
    model.batches.clear()
    model.deploy(app_spec(web=web(replicas=2)))
    common = states.advance(model.batches[0]).common
    assert [item.endpoint.weight for item in common.put if item.HasField("endpoint")] == [0, 0]


def test_the_host_balances_as_the_service_says() -> None:
    model = ClusterModel(1)
    spec = web(port(8080, "192.0.2.1"), port(8081, mode=HOST), balance=balance(objects.BALANCE_POLICY_LEAST_LOADED))
    model.deploy(app_spec(web=spec))
    model.settle()

    view = HostView()
    view.apply(HostStates(model.store).complete("node-host-1"))
    desired = NetworkView("node-host-1").desired(view)
    assert desired is not None
    (frontend,) = desired.frontends
    assert frontend.balance.policy == "least-loaded"
    assert [(each.address, each.host_mode) for each in frontend.ports] == [("192.0.2.1", False), ("", True)]
    assert [each.weight for each in desired.endpoints] == [1]


def holders(model: ClusterModel) -> dict[str, str]:
    leases = model.store.table(objects.Lease).by("kind", objects.Lease.KIND_FLOATING_ADDRESS)
    return {lease.meta.name.removeprefix(FLOATING_PREFIX): lease.holder_id.removeprefix("node-") for lease in leases}


def test_a_floating_address_prefers_hosts_with_ready_tasks_and_stays_where_it_is() -> None:
    model = ClusterModel()
    on_2 = web(port(80), floating_addresses=[ADDRESS], constraints=["node.hostname == host-2"])
    model.deploy(app_spec(web=on_2))
    model.plan()
    assert holders(model) == {ADDRESS: "host-1"}  # nothing runs yet
    model.settle()
    assert holders(model) == {ADDRESS: "host-1"}
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    states = HostStates(model.store)
    model.batches.clear()
    model.settle()
    assert holders(model) == {ADDRESS: "host-2"}
    told = [item.floating for batch in model.batches for item in states.advance(batch).common.put]
    assert [lease.holder_id for lease in told if lease.holder_id] == ["node-host-2"]
    model.change_node("host-1", state=objects.NODE_STATE_READY)
    model.settle()
    assert holders(model) == {ADDRESS: "host-2"}
    model.change_node("host-2", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert holders(model) == {ADDRESS: "host-1"}
    model.deploy(app_spec(web=web(port(80))))
    model.settle()
    assert holders(model) == {}


def test_floating_addresses_are_spread_and_belong_to_one_tenant() -> None:
    model = ClusterModel()
    many = [f"198.51.100.{number}" for number in range(70, 76)]
    model.deploy(app_spec(web=web(port(80), floating_addresses=many, replicas=0)))
    model.settle()
    assert sorted(holders(model).values()) == ["host-1", "host-1", "host-2", "host-2", "host-3", "host-3"]
    app = app_spec("other", web=web(port(81), floating_addresses=many[:1]))
    model.deploy(app)
    app.tenant = "someone"
    with pytest.raises(Refused, match="belongs to another tenant"):
        model.deploy(app)


def test_without_a_fit_host_an_address_stays_and_nothing_breaks() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=web(port(80), floating_addresses=[ADDRESS])))
    model.settle()
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    model.settle()
    assert holders(model) == {ADDRESS: "host-1"}
