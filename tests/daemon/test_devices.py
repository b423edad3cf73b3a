"""Devices: who gets which, never two what is one's own, and every reason for a refusal is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.deploying.app_changes import spec_changes
from daemon.deploying.deploy_plan import plan_deploy
from daemon.errors import Refused
from daemon.orchestration.scheduler_devices import DeviceStock
from daemon.orchestration.why_plan import why
from proto import objects_pb2 as objects
from proto import why_pb2
from raft.store import Store
from runtime.cdi_devices import host_devices
from runtime.cdi_parse import parse
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

GPU, FUSE = "nvidia.com/gpu", "example.com/fuse"
NVIDIA = Path(__file__).parents[1] / "runtime/nvidia_cdi.yaml"
GPUS = host_devices(parse(NVIDIA.read_bytes(), NVIDIA).devices)[0]  # 0, 1, a long name of each, and all

Request = objects.DeviceRequest


def device(kind: str, name: str, *units: str, tasks_max: int = 1, **properties: str) -> objects.HostDevice:
    """`tasks_max` 0: any number of tasks."""
    return objects.HostDevice(
        kind=kind,
        name=name,
        units=units or [f"{kind}={name}"],
        shared=tasks_max != 1,
        tasks_max=tasks_max if tasks_max > 1 else 0,
        properties=properties,
    )


def node_with(*devices: objects.HostDevice) -> objects.Node:
    return objects.Node(description=objects.NodeDescription(devices=devices))


def allotted(devices: list[objects.HostDevice], *requests: Request) -> list[str] | None:
    found = DeviceStock([node_with(*devices)]).allot(0, requests)
    return None if found is None else [each.name for each in found]


@pytest.mark.parametrize(
    ("requests", "names"),
    [
        ([Request(kind=GPU, count=1)], ["0"]),
        ([Request(kind=GPU, count=2)], ["0", "1"]),
        ([Request(kind=GPU, count=3)], None),
        ([Request(kind=GPU)], ["0", "1"]),
        ([Request(kind=GPU, names=["1"])], ["1"]),
        ([Request(kind=GPU, names=["1"]), Request(kind=GPU, count=1)], ["1", "0"]),
        ([Request(kind=GPU, names=["1"]), Request(kind=GPU)], ["1", "0"]),
        ([Request(kind=GPU, names=["all"])], ["all"]),
        ([Request(kind=GPU, names=["all"]), Request(kind=GPU, count=1)], None),
        ([Request(kind=GPU, names=["0", GPUS[1].name])], None),  # two names of one
        ([Request(kind=GPU, names=["7"])], None),
        ([Request(kind="amd.com/gpu", count=1)], None),
        ([Request(kind="amd.com/gpu")], None),
    ],
)
def test_gpus_by_count_by_name_and_all_of_them(requests: list[Request], names: list[str] | None) -> None:
    assert allotted(GPUS, *requests) == names


def test_a_request_that_may_have_any_does_not_take_what_another_needs() -> None:
    devices = [device(GPU, "0", model="A"), device(GPU, "1", model="B"), device(GPU, "2", model="A")]
    one, a, not_a = Request(kind=GPU, count=1), Request(kind=GPU, count=2, properties=["model == A"]), Request()
    not_a.kind, not_a.count = GPU, 1
    not_a.properties.append("model != A")
    assert allotted(devices, one, a) == ["1", "0", "2"]
    assert allotted(devices, not_a, a) == ["1", "0", "2"]
    assert allotted(devices, one, not_a, a) is None
    assert allotted(devices, Request(kind=GPU, count=10)) is None
    many = [device(GPU, str(number)) for number in (10, 9, 2, 1)]
    assert allotted(many, Request(kind=GPU, count=4)) == ["1", "2", "9", "10"]


def test_shared_devices_go_to_as_many_as_they_may_and_the_least_used_first() -> None:
    devices = [device(FUSE, "a", tasks_max=2), device(FUSE, "b", tasks_max=2), device(GPU, "any", tasks_max=0)]
    stock = DeviceStock([node_with(*devices)])
    given = []
    for number in range(5):
        found = stock.allot(0, [Request(kind=FUSE, count=1), Request(kind=GPU, count=1)])
        if found is not None:
            given.append(found[0].name)
            stock.hold(0, objects.Task(meta=objects.Meta(id=f"t{number}")), found)
    assert given == ["a", "b", "a", "b"]
    stock.release("t0")
    assert stock.allot(0, [Request(kind=FUSE, count=1)]) is not None
    assert stock.allot(0, [Request(kind=FUSE, count=2)]) is None


def test_what_is_held_under_one_name_is_not_given_away_under_another() -> None:
    stock = DeviceStock([node_with(*GPUS)])
    held = [objects.AllottedDevice(kind=GPU, name=GPUS[1].name, units=GPUS[1].units)]
    stock.hold(0, objects.Task(meta=objects.Meta(id="t")), held)
    assert stock.allot(0, [Request(kind=GPU, names=["0"])]) is None
    assert stock.allot(0, [Request(kind=GPU, names=["all"])]) is None
    assert stock.allot(0, [Request(kind=GPU)]) is None
    found = stock.allot(0, [Request(kind=GPU, count=1)])
    assert found is not None and found[0].name == "1"


def test_a_held_device_stays_held_when_its_files_get_other_names() -> None:
    stock = DeviceStock([node_with(device(GPU, "0", "/dev/new"), device(GPU, "x", "/dev/old"))])
    held = [objects.AllottedDevice(kind=GPU, name="0", units=["/dev/old"])]
    stock.hold(0, objects.Task(meta=objects.Meta(id="t")), held)
    assert stock.allot(0, [Request(kind=GPU, names=["0"])]) is None
    assert stock.allot(0, [Request(kind=GPU, names=["x"])]) is None


# ---- plans -------------------------------------------------------------------------------------------


def with_devices(model: ClusterModel, host: str, *devices: objects.HostDevice) -> None:
    model.change_node(host, description=objects.NodeDescription(devices=devices))


def asking(*requests: Request, replicas: int = 1) -> objects.ServiceSpec:
    spec = service_spec(replicas)
    spec.resources.devices.extend(requests)
    return spec


def leases(model: ClusterModel) -> list[str]:
    kind = objects.Lease.KIND_DEVICE
    return sorted(lease.meta.name for lease in model.store.table(objects.Lease).by("kind", kind))


def check_held(store: Store) -> None:
    """Each unit of a host has one holder, or several that all share it; and a lease where one has it alone."""
    holders: dict[tuple[str, str], list[objects.AllottedDevice]] = {}
    expected = set()
    for task in store.table(objects.Task):
        if task.address:
            for each in task.devices:
                for unit in each.units:
                    holders.setdefault((task.node_id, unit), []).append(each)
                    if not each.shared:
                        expected.add((f"device/{task.node_id}/{unit}", task.meta.id))
    for held in holders.values():
        assert len(held) == 1 or all(each.shared for each in held)
    found = store.table(objects.Lease).by("kind", objects.Lease.KIND_DEVICE)
    assert {(lease.meta.name, lease.holder_id) for lease in found} == expected


def test_a_device_is_given_back_when_nothing_of_its_task_is_left_and_not_before() -> None:
    model = ClusterModel()
    with_devices(model, "host-2", *GPUS)
    model.deploy(app_spec(train=asking(Request(kind=GPU, count=1), replicas=3)))
    model.settle()
    assert model.hosts("train") == ["host-2", "host-2"]
    assert len(leases(model)) == 2
    check_held(model.store)
    (pending,) = [task for task in model.alive("train") if not task.node_id]
    held = "host-2 does not have 1 nvidia.com/gpu left, as tasks hold them"
    assert held in pending.status.message
    assert "host-1 and host-3 do not have 1 nvidia.com/gpu;" in pending.status.message

    reply = why(model.store, why_pb2.WhyRequest(target=f"shop/{pending.meta.name}"), model.now_unix_ms)
    hosts = {host.node: host.against[0] for host in reply.tasks[0].hosts}
    first, second = (f"shop/{task.meta.name}" for task in model.tasks("train") if task.node_id)
    assert hosts["host-2"].reason == (
        f"does not have 1 nvidia.com/gpu left, as tasks hold them: nvidia.com/gpu=0 by {first}, "
        f"nvidia.com/gpu=1 by {second}"
    )
    assert hosts["host-1"].reason == "does not have 1 nvidia.com/gpu" and "host-1" in hosts["host-1"].remedy

    ending = next(task for task in model.tasks("train") if task.node_id)
    model.fails = lambda task: task.meta.id == ending.meta.id
    model.host_step()  # it has failed, and its container is there still
    model.plan()
    assert sum(bool(task.node_id) for task in model.alive("train")) == 1
    assert len(leases(model)) == 2
    model.host_step()  # now it is gone
    assert len(leases(model)) == 1
    model.plan()
    assert sum(bool(task.node_id) for task in model.alive("train")) == 2
    check_held(model.store)


def test_an_update_stops_the_old_task_first_where_it_has_the_only_device() -> None:
    model = ClusterModel()
    with_devices(model, "host-1", *GPUS)
    model.deploy(app_spec(train=asking(Request(kind=GPU))))
    model.settle()
    before = model.alive("train")[0].meta.id
    changed = asking(Request(kind=GPU))
    changed.container.environment["VERSION"] = "2"
    model.deploy(app_spec(train=changed))
    model.settle()
    (after,) = model.serving("train")
    assert after.meta.id != before and [each.name for each in after.devices] == ["0", "1"]
    check_held(model.store)


def test_an_update_that_asks_for_more_stops_the_old_task_only_where_that_is_enough() -> None:
    for others in (0, 1):
        model = ClusterModel()
        with_devices(model, "host-1", *GPUS)
        one = Request(kind=GPU, count=1)
        other = asking(one, replicas=others)
        model.deploy(app_spec(train=asking(one), other=other))
        model.settle()
        before = model.serving("train")[0].meta.id
        model.deploy(app_spec(train=asking(Request(kind=GPU, count=2)), other=other))
        for _ in range(30):
            model.plan()
            model.host_step()
            model.now_unix_ms += 1_100
        (serves,) = model.serving("train")
        assert (serves.meta.id == before) == bool(others)
        assert len(serves.devices) == 2 - others
        check_held(model.store)


def test_a_drain_ends_though_other_hosts_have_their_devices_held() -> None:
    model = ClusterModel()
    for host in ("host-1", "host-2"):
        with_devices(model, host, device(FUSE, "fuse", "/dev/fuse"))
    model.deploy(app_spec(train=asking(Request(kind=FUSE, count=1), replicas=2)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert model.hosts("train") == ["host-2"]
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert model.hosts("train") == ["host-1", "host-2"]


def test_a_pending_task_gets_a_device_that_comes_later() -> None:
    model = ClusterModel()
    model.deploy(app_spec(train=asking(Request(kind=FUSE, count=1))))
    model.settle()
    (pending,) = model.alive("train")
    assert "host-1, host-2 and host-3 do not have 1 example.com/fuse" in pending.status.message
    with_devices(model, "host-3", device(FUSE, "fuse"))
    model.settle()
    assert model.hosts("train") == ["host-3"]


def test_a_lost_host_keeps_its_devices_held_until_it_is_removed() -> None:
    model = ClusterModel()
    with_devices(model, "host-1", device(FUSE, "fuse"))
    model.deploy(app_spec(train=asking(Request(kind=FUSE, count=1))))
    model.settle()
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    model.settle()
    assert len(leases(model)) == 1 and not model.hosts("train")
    model.change_node("host-1", state=objects.NODE_STATE_READY)
    model.settle()
    assert model.hosts("train") == ["host-1"] and len(leases(model)) == 1
    check_held(model.store)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(kind="gpu", count=1), "'gpu' is not a kind of device"),
        (Request(kind=GPU, count=1, names=["0"]), "by name, or by count and properties"),
        (Request(kind=GPU, names=["0", "0"]), "asked for twice"),
        (Request(kind=GPU, names=["a b"]), "'a b' is not the name"),
        (Request(kind=GPU, properties=["model"]), "'model' is not about a property"),
        (Request(kind=GPU, count=65), "more than 64 devices"),
    ],
)
def test_what_makes_no_sense_is_refused(request_: Request, words: str) -> None:
    with pytest.raises(Refused) as refused:
        ClusterModel().deploy(app_spec(train=asking(request_)))
    assert "service train: " in refused.value.message and words in refused.value.message


def test_a_deploy_says_which_devices_changed_and_needs_hosts_that_know_them() -> None:
    before, after = asking(Request(kind=GPU, count=1)), asking(Request(kind=GPU, count=2, properties=["model == A"]))
    changes = ["device 1 nvidia.com/gpu removed", "device 2 nvidia.com/gpu with model == A added"]
    assert spec_changes(before, after) == changes
    model = ClusterModel()
    for spec, level in ((before, 2), (service_spec(), 0)):
        _, builder, _ = plan_deploy(model.store, app_spec(train=spec), 1, model.new_id)
        assert builder.build("id", "test", 1).feature_level == level


# ---- whatever hosts and tasks there are ------------------------------------------------------------
