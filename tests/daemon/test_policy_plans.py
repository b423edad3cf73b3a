"""Policies as operators apply and test them: from objects and words to the verdict and what hosts are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.agent.host_view import HostView
from daemon.agent.network_view import NetworkView
from daemon.errors import Refused
from daemon.leader.host_state_plan import HostStates
from daemon.policies.policy_changes_plan import plan_apply_policies, plan_remove_policy
from daemon.policies.policy_listing_plan import add_counts, policy_views
from daemon.policies.policy_test_plan import answer_test
from net.policy import Selector
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import PolicyCount, PolicyDenial, ReadPolicyCountsReply
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

Action = control.PolicyChange
WEB = objects.PolicyPeer(services=objects.PolicySelector(app="shop", service="web"))
TCP_80 = objects.PolicyPort(protocol="tcp", first=80)


def policy(name: str, selects: objects.PolicySelector, *rules: objects.PolicyRule, **fields: object) -> objects.Policy:
    found = objects.Policy(meta=objects.Meta(name=name), selects=selects, ingress=objects.PolicyRules(rules=rules))
    found.MergeFrom(objects.Policy(**fields))  # type: ignore[arg-type]
    return found


DB = objects.PolicySelector(app="shop", service="db")
ONLY_WEB = policy("db", DB, objects.PolicyRule(peers=[WEB], ports=[TCP_80]))


@pytest.fixture
def model() -> ClusterModel:
    """Apps shop (web, db with a published port, batch) and blog (news)."""
    model = ClusterModel()
    published = objects.PortSpec(protocol="tcp", target=80, published=8080)
    db = service_spec(1, ports=[published])
    model.deploy(app_spec("shop", db=db, web=service_spec(1), batch=service_spec(1)))
    model.deploy(app_spec("blog", news=service_spec(1)))
    model.settle()
    return model


def apply(model: ClusterModel, *policies: objects.Policy) -> control.ApplyPoliciesReply:
    request = control.ApplyPoliciesRequest(policies=policies)
    reply, builder = plan_apply_policies(model.store, request, model.new_id)
    model.apply(builder)
    return reply


def asks(model: ClusterModel, source: str, target: str, port: int = 80, **fields: bool) -> control.TestPolicyReply:
    request = control.TestPolicyRequest(source=source, target=target, port=port, **fields)  # type: ignore[arg-type]
    return answer_test(model.store, request)


def test_applying_creates_replaces_and_leaves_alone(model: ClusterModel) -> None:
    reply = apply(model, ONLY_WEB, policy("empty", objects.PolicySelector(app="nobody")))
    assert [each.action for each in reply.changes] == [Action.CREATE, Action.CREATE]
    assert reply.warnings == ["policy empty selects no service that is there now"]
    before = model.store.revision
    assert [each.action for each in apply(model, ONLY_WEB).changes] == [Action.UNCHANGED]
    assert model.store.revision == before
    [change] = apply(model, policy("db", DB, dry_run=True)).changes
    assert change.action == Action.UPDATE
    removed, builder = plan_remove_policy(model.store, "default/db")
    model.apply(builder)
    assert removed.meta.name == "db"
    with pytest.raises(Refused, match="there is no policy 'db'"):
        plan_remove_policy(model.store, "db")


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        (policy("Über", DB), "cannot be the name"),
        (policy("a", objects.PolicySelector(tenant="other")), "its own tenant"),
        (objects.Policy(meta=objects.Meta(name="a")), "neither ingress nor egress"),
        (policy("a", DB, objects.PolicyRule(peers=[objects.PolicyPeer(cidr="10.0.0.1/8")])), "not a range"),
        (policy("a", DB, objects.PolicyRule(peers=[objects.PolicyPeer(cidr="::/0", services=DB)])), "not both"),
        (policy("a", DB, objects.PolicyRule(ports=[objects.PolicyPort(protocol="icmp")])), "no protocol with ports"),
        (policy("a", DB, objects.PolicyRule(ports=[objects.PolicyPort(protocol="tcp", first=9, last=8)])), "range"),
    ],
)
def test_what_makes_no_sense_is_refused(model: ClusterModel, wrong: objects.Policy, refusal: str) -> None:
    with pytest.raises(Refused, match=refusal):
        plan_apply_policies(model.store, control.ApplyPoliciesRequest(policies=[wrong]), model.new_id)


def test_the_test_names_the_rule_that_decides(model: ClusterModel) -> None:
    assert asks(model, "shop/batch", "shop/db").rule == "both are in network shop/default"
    assert "share no network" in asks(model, "blog/news", "shop/db").rule
    apply(model, ONLY_WEB)
    web = asks(model, "shop/web", "shop/db")
    assert (web.allowed, web.rule) == (True, "rule 1 of policy db allows ingress: shop/web to shop/db")
    assert not asks(model, "shop/web", "shop/db", 81).allowed
    denied = asks(model, "shop/batch", "shop/db")
    assert not denied.allowed and "no ingress rule of policy db allows it" in denied.rule
    address = next(task.address for task in model.store.table(objects.Task) if task.service == "web")
    assert asks(model, address, "shop/db.1").allowed, "by a task's address"
    assert asks(model, "host-1", "shop/db").rule == "hosts reach every task"
    assert not asks(model, "203.0.113.9", "shop/db", 8080).allowed
    assert not asks(model, "shop/batch", "shop/db", 8080, published=True).allowed
    with pytest.raises(Refused, match="publishes no port"):
        asks(model, "shop/web", "shop/batch", 80, published=True)
    with pytest.raises(Refused, match="give a port"):
        asks(model, "shop/web", "shop/db", 0)
    with pytest.raises(Refused, match="say nothing of the way"):
        asks(model, "203.0.113.9", "host-1")


def test_another_tenant_is_let_in_by_name_only(model: ClusterModel) -> None:
    site = app_spec("site", page=service_spec(1))
    site.tenant = "guest"
    model.deploy(site)
    everyone = objects.PolicyPeer(services=objects.PolicySelector(app="site"))
    apply(model, policy("db", DB, objects.PolicyRule(peers=[everyone])))
    assert not asks(model, "site/page", "shop/db").allowed
    everyone.services.tenant = "guest"
    apply(model, policy("db", DB, objects.PolicyRule(peers=[everyone])))
    assert asks(model, "site/page", "shop/db").allowed


def test_hosts_are_told_of_policies_labels_and_closed_networks(model: ClusterModel) -> None:
    states = HostStates(model.store)
    view = HostView()
    view.apply(states.complete("node-host-1"))
    network = NetworkView("node-host-1")
    assert (found := network.desired(view)) is not None and not found.policies
    done = len(model.batches)
    apply(model, ONLY_WEB)
    for batch in model.batches[done:]:
        view.apply(states.advance(batch).common)
    found = network.desired(view)
    assert found is not None
    assert [each.selects for each in found.policies] == [Selector("default", "shop", "db")]
    assert all(task.service_id for task in found.tasks)
    done = len(model.batches)
    model.apply(plan_remove_policy(model.store, "db")[1])
    for batch in model.batches[done:]:
        view.apply(states.advance(batch).common)
    assert (found := network.desired(view)) is not None and not found.policies


def test_a_policy_in_an_apps_file_is_its_own_and_replaces_no_task(model: ClusterModel) -> None:
    db = service_spec(1)
    db.policy.ingress.rules.add(peers=[objects.PolicyPeer(services=objects.PolicySelector(service="web"))])
    before = {task.meta.id for task in model.store.table(objects.Task)}
    app = app_spec("shop", db=db, web=service_spec(1), batch=service_spec(1))
    app.networks["default"].closed = True
    model.deploy(app)
    model.settle()
    replaced = [task for task in model.store.table(objects.Task) if task.meta.id not in before]
    assert all(task.service == "db" for task in replaced), "only the port went from db"
    assert asks(model, "shop/web", "shop/db").allowed
    assert not asks(model, "shop/batch", "shop/db").allowed
    assert "is closed" in asks(model, "shop/web", "shop/batch").rule
    [view] = policy_views(model.store, "")
    assert view.service == "shop/db"
    assert view.policy.ingress.rules[0].peers[0].services.app == "shop"
    with pytest.raises(Refused, match="in the Compose file"):
        plan_remove_policy(model.store, "shop/db")


def test_what_hosts_counted_is_summed_and_named(model: ClusterModel) -> None:
    apply(model, ONLY_WEB)
    views = policy_views(model.store, "db")
    assert views[0].selected == ["shop/db"]
    known = views[0].policy.meta.id
    address = next(task.address for task in model.store.table(objects.Task) if task.service == "batch")
    denial = PolicyDenial(policy_id=known, unix_ms=5, source=address, target="203.0.113.9", protocol="tcp", port=80)
    counts = [PolicyCount(policy_id=known, packets=2, bytes=120), PolicyCount(policy_id="gone", packets=1)]
    add_counts(model.store, views, [ReadPolicyCountsReply(counts=counts, denials=[denial])] * 2)
    assert (views[0].packets, views[0].bytes) == (4, 240)
    assert [(each.source, each.target) for each in views[0].denials] == [("shop/batch.1", "203.0.113.9")] * 2


def test_new_ids_are_only_taken_where_something_is_new(model: ClusterModel) -> None:
    def refuse() -> str:
        raise AssertionError("nothing is new")

    make: Callable[[], str] = refuse
    apply(model, ONLY_WEB)
    plan_apply_policies(model.store, control.ApplyPoliciesRequest(policies=[ONLY_WEB]), make)
