"""Settings of containers: what is refused before it reaches a host, and what older hosts must not be given."""

from __future__ import annotations

import pytest

from daemon.deploying.container_checks import SETTINGS
from daemon.deploying.deploy_plan import plan_deploy
from daemon.errors import Refused
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

EVERYTHING = objects.ContainerSpec(
    ulimits=[objects.Ulimit(name="nofile", soft=1, hard=2)],
    sysctls={"net.core.somaxconn": "1"},
    shm_size_bytes=1 << 20,
    group_add=["mail"],
    annotations={"a": "b"},
    oom_score_adj=1,
    domainname="example.org",
    seccomp_profile="unconfined",
    apparmor_profile="mine",
    devices=[objects.DeviceMapping(source="/dev/fuse", target="/dev/fuse", permissions="rw")],
    post_start=[objects.Hook(command=["warm"])],
    pre_stop=[objects.Hook(command=["drain"])],
    init_tasks=[objects.InitTask(command=objects.StringList(values=["check"]))],
    attached=True,
    host_network=True,
)


def with_container(container: objects.ContainerSpec) -> objects.ServiceSpec:
    spec = service_spec(1)
    spec.container.MergeFrom(container)
    if container.host_network:
        del spec.networks[:]
        spec.container.sysctls.clear()
    return spec


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (objects.ContainerSpec(ulimits=[objects.Ulimit(name="frob")]), "ulimit frob: 'frob' is not one of"),
        (objects.ContainerSpec(sysctls={"vm.swappiness": "1"}), "sysctl vm.swappiness: it is the whole host's"),
        (objects.ContainerSpec(annotations={"io.containerd.x": "1"}), "annotation io.containerd.x: names that begin"),
        (objects.ContainerSpec(devices=[objects.DeviceMapping(source="/etc", target="/dev/x")]), "not a path below"),
        (objects.ContainerSpec(seccomp_profile="[]"), "the seccomp profile is not a JSON object"),
        (objects.ContainerSpec(shm_size_bytes=-1), "its shm_size is negative"),
        (objects.ContainerSpec(oom_score_adj=-500), "its oom_score_adj -500 is not between 0 and 1000"),
        (objects.ContainerSpec(domainname="a b"), "'a b' is not a domain name"),
        (objects.ContainerSpec(apparmor_profile="a b"), "'a b' is not the name of a profile"),
        (objects.ContainerSpec(logging=objects.Logging(files_max=101)), "its log is to have 101 files"),
        (objects.ContainerSpec(logging=objects.Logging(size_bytes_max=100)), "is to have 100 bytes"),
        (objects.ContainerSpec(shares=objects.KernelShares(cpus="3-1")), "cpuset: '3-1' has the cores 3-1"),
        (objects.ContainerSpec(shares=objects.KernelShares(cpu_shares=1)), "its cpu_shares 1 are not between 2"),
        (objects.ContainerSpec(shares=objects.KernelShares(cpu_period_us=1)), "its cpu_period 1 is not between"),
        (objects.ContainerSpec(shares=objects.KernelShares(swap_bytes=-2)), "its memswap_limit is negative"),
        (objects.ContainerSpec(isolation=objects.Isolation(runtime="a b")), "'a b' is neither a runtime's program"),
        (
            objects.ContainerSpec(domainname="a.b", isolation=objects.Isolation(user_namespace=True)),
            "with a user namespace it cannot have a domainname",
        ),
        (
            objects.ContainerSpec(host_network=True, isolation=objects.Isolation(user_namespace=True)),
            "with a user namespace it cannot share its host's network",
        ),
        (
            objects.ContainerSpec(isolation=objects.Isolation(user_namespace=True, runtime="io.containerd.kata.v2")),
            "the shim io.containerd.kata.v2 is not known to have user namespaces",
        ),
        (objects.ContainerSpec(mounts=[objects.Mount(target="/a", subpath="b/../..")]), "leads out of the volume"),
        (objects.ContainerSpec(group_add=[str(number) for number in range(300)]), "it has more than 256 group add"),
    ],
)
def test_what_no_service_may_say(container: objects.ContainerSpec, words: str) -> None:
    model = ClusterModel()
    with pytest.raises(Refused, match=words):
        model.deploy(app_spec(web=with_container(container)))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_host_that_would_pass_over_a_setting_is_not_given_it(name: str) -> None:
    container = objects.ContainerSpec()
    container.MergeFrom(EVERYTHING)
    for other in SETTINGS:
        if other != name:
            container.ClearField(other)  # type: ignore[arg-type]
    model = ClusterModel()
    for spec, level in ((with_container(container), WORKLOADS_LEVEL), (service_spec(1), 0)):
        _, builder, _ = plan_deploy(model.store, app_spec(web=spec), 1, model.new_id)
        assert builder.build("r" * 26, "test", 1).feature_level == level


def test_a_change_is_told_by_its_name() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=service_spec(1)))
    reply = model.deploy(app_spec(web=with_container(EVERYTHING)))
    (change,) = reply.changes
    assert list(change.reasons) == [
        "domainname none -> example.org",
        "oom score adj none -> 1",
        "apparmor profile none -> mine",
        "annotation a added: b",
        "ulimit nofile=1:2 added",
        "group mail added",
        "device /dev/fuse at /dev/fuse added",
        "shared memory usual -> 1 MiB",
        "filter of system calls changed",
        "post_start hooks changed",
        "pre_stop hooks changed",
        "init tasks changed",
        "network default removed",
        "network host added",
    ]
    assert change.tasks_replaced == 1


def test_parts_that_are_messages_need_hosts_that_know_them() -> None:
    model = ClusterModel()
    for container in (
        objects.ContainerSpec(logging=objects.Logging()),
        objects.ContainerSpec(shares=objects.KernelShares(cpus="0")),
        objects.ContainerSpec(mounts=[objects.Mount(kind=objects.Mount.KIND_TMPFS, target="/a", no_copy=True)]),
        objects.ContainerSpec(mounts=[objects.Mount(kind=objects.Mount.KIND_TMPFS, target="/a", subpath="b")]),
    ):
        _, builder, _ = plan_deploy(model.store, app_spec(web=with_container(container)), 1, model.new_id)
        assert builder.build("r" * 26, "test", 1).feature_level == WORKLOADS_LEVEL
