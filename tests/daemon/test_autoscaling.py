"""Scaling by load in a cluster without machines: deploys, scaling by hand, ways back, and what the leader stores."""

from __future__ import annotations

import pytest

from daemon.api.events_plan import events_of
from daemon.deploying.autoscale_checks import autoscale_problems
from daemon.deploying.deploy_plan import plan_scale
from daemon.deploying.revisions_plan import find_revision, plan_revert
from daemon.errors import Refused
from daemon.leader.autoscaler import look, plan_autoscale
from daemon.leader.endpoints_plan import frontends
from daemon.orchestration.autoscale_plan import History
from daemon.orchestration.leases import LeasePool
from daemon.orchestration.why_plan import why
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto import why_pb2
from proto.host_pb2 import TaskLoad
from raft.features import WORKLOADS_LEVEL
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import IMAGE, ClusterModel, app_spec, service_spec

SCALE = objects.Autoscale(replicas_min=2, replicas_max=6, connections=10, stabilisation_ms=30_000)


def scaled_app(replicas: int = 0, scale: objects.Autoscale = SCALE, image: str = IMAGE) -> control.AppSpec:
    return app_spec(web=service_spec(replicas, image, autoscale=scale))


class Scaled(ClusterModel):
    """With the leader's part in it: `clients` is what every task of the service has."""

    def __init__(self) -> None:
        super().__init__(3)
        self.histories: dict[str, History] = {}
        self.raise_level()

    def raise_level(self) -> None:
        (cluster,) = self.store.table(objects.Cluster)
        after = objects.Cluster()
        after.CopyFrom(cluster)
        after.feature_level = WORKLOADS_LEVEL
        self.apply(TransactionBuilder().update(after))

    def step(self, total: int) -> None:
        """One pass of the autoscaler with clients that are spread over the ready tasks; then the cluster follows."""
        serving = self.serving("web")
        share = total // max(len(serving), 1)
        loads = {task.meta.id: TaskLoad(clients=share, clients_known=True) for task in serving}
        self.now_unix_ms += 10_000
        asking = look(self.store, loads, self.histories, self.now_unix_ms)
        builder = plan_autoscale(self.store, asking, self.histories, self.now_unix_ms, self.now_unix_ms)
        if len(builder):
            self.apply(builder)
        self.settle()

    @property
    def web(self) -> objects.Service:
        return self.service("web")


@pytest.fixture
def model() -> Scaled:
    made = Scaled()
    made.deploy(scaled_app())
    made.settle()
    return made


def test_a_service_begins_at_its_least_and_follows_its_load(model: Scaled) -> None:
    assert len(model.serving("web")) == 2
    model.step(20)
    assert model.web.autoscaling.state == objects.Autoscaling.STATE_STEADY
    model.step(50)
    assert len(model.serving("web")) == 5 and model.web.generation == 1
    (event,) = [event for batch in model.batches for event in events_of(batch) if event.action == "scaled"]
    assert "2 replicas -> 5 replicas (connections of a task is 25" in event.message
    model.step(500)
    model.step(500)
    assert len(model.serving("web")) == 6
    assert model.web.autoscaling.state == objects.Autoscaling.STATE_AT_MAX
    for _ in range(5):
        model.step(0)
    assert len(model.serving("web")) == 2
    reply = why(model.store, why_pb2.WhyRequest(target="web"), model.now_unix_ms)
    assert reply.scaled[0].service == "shop/web" and reply.scaled[0].autoscaling.replicas_before == 6


def test_a_deploy_of_the_same_file_leaves_the_number_and_no_hand_changes_it(model: Scaled) -> None:
    model.step(40)
    assert model.web.spec.replicas == 4
    for replicas in (0, 2, 6):
        reply = model.deploy(scaled_app(replicas))
        assert model.web.spec.replicas == 4 and reply.changes[0].replicas_after == 4
    with pytest.raises(Refused, match="follows their load, from 2 to 6"):
        plan_scale(model.store, model.web, 3)
    narrower = objects.Autoscale(replicas_min=1, replicas_max=3, connections=10)
    reply = model.deploy(scaled_app(scale=narrower))
    assert model.web.spec.replicas == 3 and model.web.generation == 1
    assert "scaling 2 to 6 by 10 connections" in reply.changes[0].reasons[0]
    model.deploy(app_spec(web=service_spec(1)))
    assert model.web.spec.replicas == 1


def test_the_files_number_is_where_it_begins() -> None:
    model = Scaled()
    model.deploy(scaled_app(5))
    assert model.web.spec.replicas == 5
    model = Scaled()
    model.deploy(app_spec(web=service_spec(4)))
    model.deploy(scaled_app())
    assert model.web.spec.replicas == 4  # as it was


def test_a_way_back_keeps_the_number_and_its_bounds(model: Scaled) -> None:
    wider = objects.Autoscale(replicas_min=2, replicas_max=9, connections=10)
    model.load_image("docker.io/library/web:2", "b")
    model.deploy(scaled_app(scale=wider, image="docker.io/library/web:2"))
    model.settle()
    model.step(80)
    now = model.web
    after, _ = plan_revert(model.store, LeasePool(model.store), now, find_revision(now, 1), model.now_unix_ms, "")
    assert after.spec.container.image != now.spec.container.image
    assert after.spec.replicas == now.spec.replicas > 2 and after.spec.autoscale == wider


def test_hosts_are_told_what_to_measure(model: Scaled) -> None:
    (frontend,) = frontends(model.store)
    assert frontend.autoscale == SCALE


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"replicas_min": 0}, "no range"),
        ({"replicas_min": 7}, "no range"),
        ({"replicas_max": 20_000}, "no range"),
        ({"connections": 0}, "by which is not said"),
        ({"cpu_percent": 50}, "neither reserves CPU"),
        ({"memory_percent": 50}, "neither reserves memory"),
        ({"stabilisation_ms": -1}, "negative"),
        ({"metric": objects.ScrapedMetric(port=0, name="x", target_thousandths=1)}, "no port"),
        ({"metric": objects.ScrapedMetric(port=1, name="", target_thousandths=1)}, "no name"),
        ({"metric": objects.ScrapedMetric(port=1, name="x", target_thousandths=1, path="x")}, "begin with /"),
    ],
)
def test_what_cannot_be_is_refused_whoever_wrote_it(scale: dict[str, object], words: str) -> None:
    spec = service_spec(2)
    spec.networks.append("default")
    spec.autoscale.CopyFrom(SCALE)
    assert list(autoscale_problems(spec)) == []
    for name, value in scale.items():
        if name == "metric":
            spec.autoscale.metric.CopyFrom(value)  # type: ignore[arg-type]
        else:
            setattr(spec.autoscale, name, value)
    assert any(words in problem for problem in autoscale_problems(spec))
    spec.kind = objects.SERVICE_KIND_GLOBAL
    assert any("replicated" in problem for problem in autoscale_problems(spec))
