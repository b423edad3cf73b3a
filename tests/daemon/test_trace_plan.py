"""What `net trace` says, hop by hop: a path that is well, and that path with one thing broken at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from daemon.doctor import isolation_plan
from daemon.doctor.trace_ends_plan import HOST, NAME, NOBODY, OUTSIDE, SERVICE, TASK, find_source, find_target, resolved
from daemon.doctor.trace_plan import Evidence, trace
from daemon.errors import Refused
from net.addresses import ipv6_of
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.doctor_pb2 import (
    HOP_OUTCOME_FAILED,
    HOP_OUTCOME_OK,
    ConnectResult,
    NameAnswer,
    PathObservation,
    PeerObservation,
    ProbeResult,
    RouteLookup,
    TaskEnd,
    TracePathReply,
    TunnelObservation,
)
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel

A, B = "host-1", "host-2"
PREFIX = "fd00:f00d::/96"


class World:
    """shop/web on host-1 and shop/db on host-2, a blog that shares nothing with them, and what the hosts see."""

    def __init__(self) -> None:
        self.model = ClusterModel(3)
        for number in (1, 2, 3):
            network = objects.NodeNetwork(tunnel_address=f"10.112.{number}.1", tunnel_mac=f"02:00:00:00:00:0{number}")
            self.model.change_node(f"host-{number}", network=network)
        cluster = objects.Cluster()
        cluster.CopyFrom(next(iter(self.model.store.table(objects.Cluster))))
        cluster.network.ipv6_prefix = PREFIX
        self.model.apply(TransactionBuilder().update(cluster))
        self.model.deploy(app("shop", web=(A, "default"), db=(B, "default"), shut=(A, "inner")))
        self.model.deploy(app("blog", post=(B, "default")))
        self.model.settle()
        self.here = PathObservation(
            task=end_of(self.task("web")),
            name=NameAnswer(addresses=[self.vip], code="NOERROR", server="169.254.77.1"),
            routes=[RouteLookup(address=self.db.address, device="fwx0", gateway="10.112.2.1")],
            peers=[peer(self.node(B))],
            connects=[ConnectResult(address=self.vip, port=5432, connected=True)],
            tunnel=TunnelObservation(device="fwx0", there=True, up=True, mtu_bytes=1450),
            forwarding=True,
        )
        self.there = PathObservation(
            task=end_of(self.db),
            routes=[RouteLookup(address=self.task("web").address, device="fwx0", gateway="10.112.1.1")],
            peers=[peer(self.node(A))],
            tunnel=TunnelObservation(device="fwx0", there=True, up=True, mtu_bytes=1450),
            forwarding=True,
        )

    def node(self, name: str) -> objects.Node:
        found = self.model.store.table(objects.Node).unique("name", name)
        assert found is not None
        return found

    def task(self, service: str) -> objects.Task:
        return next(each for each in self.model.store.table(objects.Task) if each.service == service)

    @property
    def db(self) -> objects.Task:
        return self.task("db")

    @property
    def vip(self) -> str:
        return next(each.vip for each in self.model.store.table(objects.Service) if each.meta.name == "db")

    def trace(self, source: str = "shop/web", target: str = "db") -> TracePathReply:
        store = self.model.store
        begin = find_source(store, source)
        aim = find_target(store, target, begin, 5432, "tcp")
        nodes = {each.meta.id: each for each in store.table(objects.Node)}
        policy = isolation_plan.decide(store, begin, aim)
        return trace(Evidence(begin, aim, policy, self.here, {self.db.meta.id: self.there}, nodes, "4789"))


def app(name: str, **services: tuple[str, str]) -> control.AppSpec:
    spec = control.AppSpec(name=name, tenant="default")
    for service, (host, network) in services.items():
        made = spec.services[service]
        made.replicas = 1
        made.container.image = "web:1"
        made.constraints.append(f"node.hostname == {host}")
        made.networks.append(network)
        made.ports.add(protocol="tcp", target=5432)
        spec.networks[network].internal = network == "inner"
    return spec


def end_of(task: objects.Task) -> TaskEnd:
    return TaskEnd(
        known=True,
        address=task.address,
        namespace_there=True,
        interface_there=True,
        interface_up=True,
        inside_up=True,
        addresses_inside=[task.address],
        route_to_task=True,
        default_route_inside=True,
        listeners=["0.0.0.0:5432"],
        interface=f"fwt{task.service}",
        neighbour_right=True,
    )


def peer(node: objects.Node) -> PeerObservation:
    answered = ProbeResult(sent=3, answered=3, latency_seconds=0.001, size_bytes=64)
    return PeerObservation(
        node_id=node.meta.id,
        neighbour_right=True,
        forwarding_right=True,
        route_right=True,
        underlay=answered,
        overlay=answered,
        overlay_large=ProbeResult(sent=3, answered=3, latency_seconds=0.001, size_bytes=1450),
        forwarding=node.address,
        neighbour=node.network.tunnel_mac,
    )


@pytest.fixture
def world() -> World:
    return World()


def test_a_path_that_is_well_is_walked_to_its_end(world: World) -> None:
    reply = world.trace()
    assert [hop.hop for hop in reply.hops] == [
        "source",
        "name",
        "balancer",
        "policy",
        "route",
        "tunnel",
        "underlay",
        "overlay",
        "peer",
        "interface",
        "process",
        "connection",
    ]
    assert {hop.outcome for hop in reply.hops} == {HOP_OUTCOME_OK}
    assert reply.reached
    assert reply.verdict == "shop/web.1 reaches shop/db:5432"


def here(**fields: object) -> Callable[[World], None]:
    """Sets fields of what the source's host sees, named as `part__field`; of a repeated part, in its first."""
    return lambda world: change(world.here, fields.items())


def there(**fields: object) -> Callable[[World], None]:
    return lambda world: change(world.there, fields.items())


def change(seen: PathObservation, fields: Iterable[tuple[str, object]]) -> None:
    for path, value in fields:
        *parts, last = path.split("__")
        message = seen
        for part in parts:
            below = getattr(message, part)
            message = below[0] if hasattr(below, "__len__") else below
        if isinstance(value, list):
            del getattr(message, last)[:]
            getattr(message, last).extend(value)
        else:
            setattr(message, last, value)


@pytest.mark.parametrize(
    ("broken", "hop", "where", "words"),
    [
        (here(task__known=False), "source", A, "does not know web.1"),
        (here(task__interface_up=False), "source", A, "is down"),
        (here(name__code="", name__addresses=[]), "name", A, "did not answer"),
        (here(name__code="NXDOMAIN", name__addresses=[]), "name", A, "not known there"),
        (here(name__addresses=["10.120.9.9"]), "name", A, "the state says 10.120"),
        (here(vip_differences=["the kernel lacks 2 entries"]), "balancer", A, "lacks 2 entries"),
        (here(differences=["missing chain forward"]), "rules", A, "missing chain forward"),
        (here(conntrack_full=True), "connections", A, "table of connections is full"),
        (here(forwarding=False), "forwarding", A, "ip_forward"),
        (
            here(routes__device="eth0", routes__gateway="192.0.2.254"),
            "route",
            A,
            "goes by eth0 via 192.0.2.254; it should",
        ),
        (here(routes__error="there is no route"), "route", A, "there is no route"),
        (here(tunnel__there=False), "tunnel", A, "fwx0 is missing"),
        (here(tunnel__up=False), "tunnel", A, "fwx0 is down"),
        (here(peers__neighbour_right=False, peers__neighbour="02:99"), "tunnel", A, "neighbour entry of 10.112.2.1"),
        (here(peers__forwarding_right=False, peers__forwarding=""), "tunnel", A, "FDB entry of 02:00:00:00:00:02"),
        (here(peers__route_right=False, peers__route="by eth0"), "tunnel", A, "tunnel address 10.112.2.1: by eth0"),
        (here(peers__underlay__answered=0), "underlay", A, "does not answer at 192.0.2.2"),
        (
            here(peers__underlay__answered=0, peers__underlay_neighbour="was set by hand"),
            "underlay",
            A,
            "was set by hand",
        ),
        (here(peers__overlay__answered=0), "overlay", A, "not over VXLAN"),
        (here(peers__overlay_large__answered=0), "MTU", A, "packets of 1450 bytes"),
        (there(forwarding=False), "forwarding", B, "ip_forward"),
        (there(tunnel__up=False), "peer", B, "fwx0 is down"),
        (there(peers__forwarding_right=False), "peer", B, "FDB entry of 02:00:00:00:00:01"),
        (there(routes__error="there is no route"), "peer", B, "the way back to"),
        (there(routes__device="eth0"), "peer", B, "goes by eth0"),
        (there(conntrack_full=True), "connections", B, "full"),
        (there(task__namespace_there=False), "interface", B, "namespace of db.1 is gone"),
        (there(task__interface_there=False), "interface", B, "fwtdb of db.1 is missing"),
        (there(task__inside_up=False), "interface", B, "eth0 within db.1 is down"),
        (there(task__addresses_inside=["10.9.9.9"]), "interface", B, "lacks its address"),
        (there(task__default_route_inside=False), "interface", B, "no default route"),
        (there(task__route_to_task=False), "interface", B, "something else has it"),
        (there(task__neighbour_right=False), "interface", B, "neighbour entry"),
        (there(task__listeners=[]), "process", B, "no port at all"),
        (there(task__listeners=["0.0.0.0:80"]), "process", B, "listens on 80"),
        (there(task__listeners=["127.0.0.1:5432"]), "process", B, "127.0.0.1:5432 only"),
        (
            here(connects__connected=False, connects__error="no answer", other_filters=["table inet theirs"]),
            "connection",
            A,
            "no answer; packet filters of other programs that may drop it: table inet theirs",
        ),
    ],
)
def test_the_first_hop_that_fails_is_named(
    world: World, broken: Callable[[World], None], hop: str, where: str, words: str
) -> None:
    broken(world)
    reply = world.trace()
    failed = next(each for each in reply.hops if each.outcome == HOP_OUTCOME_FAILED)
    assert (failed.hop, failed.where) == (hop, where)
    assert words in failed.message
    assert failed.advice
    assert not reply.reached
    assert reply.verdict == f"{hop} on {where}: {failed.message}"


def test_what_was_repaired_is_said_although_the_path_is_well(world: World) -> None:
    world.here.recent_drift.append("3 s ago: missing chain forward")
    reply = world.trace()
    assert reply.reached
    assert "missing chain forward" in reply.verdict


def test_another_app_is_kept_apart_and_the_networks_are_named(world: World) -> None:
    world.here.name.CopyFrom(NameAnswer(code="NXDOMAIN"))
    reply = world.trace(target="blog/post")
    assert reply.verdict == (
        "name on host-1: post.blog is not known there (NXDOMAIN): "
        "shop/web.1 is in network shop/default, blog/post in network blog/default: they share no network"
    )


def test_services_of_other_tenants_are_asked_for_with_their_tenant(world: World) -> None:
    """APP/NAME too, and a policy that opens the way is why the name is known."""
    store = world.model.store
    post = next(each for each in store.table(objects.Service) if each.meta.name == "post")
    theirs = objects.Service()
    theirs.CopyFrom(post)
    theirs.meta.tenant = "acme"
    world.model.apply(TransactionBuilder().update(theirs))
    web = find_source(store, "shop/web.1")
    for text in ("blog/post", "post.blog.acme"):
        found = find_target(store, text, web, 0, "tcp")
        assert (found.kind, found.label, found.name) == (SERVICE, "blog/post", "post.blog.acme")


def test_ends_are_found_by_what_people_say(world: World) -> None:
    store = world.model.store
    web = find_source(store, "shop/web.1")
    assert find_source(store, "web").task == web.task
    assert find_source(store, A).task is None
    with pytest.raises(Refused, match="no task, service or host"):
        find_source(store, "nothing")

    def target(text: str) -> tuple[str, str, str]:
        found = find_target(store, text, web, 0, "tcp")
        return found.kind, found.label, found.name

    assert target("db") == (SERVICE, "shop/db", "db")
    assert target("shop/db") == (SERVICE, "shop/db", "db.shop")
    assert target("db.shop") == (SERVICE, "shop/db", "db.shop")
    assert target("db.1") == (TASK, "shop/db.1", "db.1.shop")
    assert target(world.vip) == (SERVICE, "shop/db", "")
    assert target(world.db.address) == (TASK, "shop/db.1", "")
    assert target(B) == (HOST, B, "")
    assert target("192.0.2.2") == (HOST, B, "")
    assert target(ipv6_of(PREFIX, world.vip)) == (SERVICE, "shop/db", "")
    assert (
        find_target(store, ipv6_of(PREFIX, world.db.address), web, 0, "tcp").over("10.112.2.1") == "fd00:f00d::a70:201"
    )
    assert target("fd00:f00d::a70:2fa") == (NOBODY, "fd00:f00d::a70:2fa", "")
    assert target("2001:db8::1") == (OUTSIDE, "2001:db8::1", "")
    assert target("198.51.100.1") == (OUTSIDE, "198.51.100.1", "")
    assert target("10.112.2.250") == (NOBODY, "10.112.2.250", "")
    assert target("example.com") == (NAME, "example.com", "example.com")
    assert find_target(store, "dbb", web, 0, "tcp").similar[0] == "db"
    assert find_target(store, "db", web, 0, "tcp").port == 5432
    outside = resolved(store, find_target(store, "example.com", web, 80, "tcp"), ["198.51.100.7"])
    assert (outside.kind, outside.label, outside.addresses) == (OUTSIDE, "example.com", ("198.51.100.7",))


def test_internal_networks_have_no_way_out(world: World) -> None:
    networks = {each.meta.id: each for each in world.model.store.table(objects.Network)}
    assert not isolation_plan.to_outside(world.task("shut"), networks).allowed
    assert isolation_plan.to_outside(world.task("web"), networks).allowed
    assert isolation_plan.to_outside(None, networks).allowed


def test_a_policy_in_the_way_is_named(world: World) -> None:
    policy = objects.Policy(
        meta=objects.Meta(id="p", name="backups-only", tenant="default"),
        selects=objects.PolicySelector(app="shop", service="db"),
    )
    policy.ingress.rules.add().peers.add().services.service = "backup"
    world.model.apply(TransactionBuilder().create(policy))
    reply = world.trace()
    assert reply.verdict.startswith("policy on host-1: no ingress rule of policy backups-only allows it")
    assert reply.advice.startswith("`fairway net policy test shop/web.1 shop/db 5432`")
