"""The specification that runc gets, on hosts with either version of control groups, and the check of the host."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import trio

from proto.objects_pb2 import ContainerSpec, KernelShares, Resources
from runtime import cgroup, errors, features, oci_mounts, oci_spec
from runtime.cgroup import CgroupHost
from runtime.model import BindMount, ContainerRequest, ImageConfig, TmpfsMount
from runtime.oci_spec import HostFacts
from runtime.users import ProcessUser

V1 = CgroupHost("v1", ("cpu", "memory", "pids"), swap_accounting=False)
V2 = CgroupHost("v2", ("cpu", "cpuset", "memory", "pids"), swap_accounting=True)
IMAGE = ImageConfig(
    "amd64", "linux", (), ("/entry",), ("serve",), ("PATH=/p", "A=image", "B=image"), stop_signal="SIGQUIT"
)
NOTHING = ImageConfig("amd64", "linux", ())


def built(
    spec: ContainerSpec | None = None, resources: Resources | None = None, host: CgroupHost = V2, **more: Any
) -> dict[str, Any]:
    user = more.pop("user", ProcessUser(0, 0, (0,), "/root"))
    init = more.pop("init_path", None)
    request = ContainerRequest(
        "0123456789abcdef", "sha256:0", spec or ContainerSpec(), resources or Resources(), **more
    )
    return oci_spec.build(request, IMAGE, user, HostFacts("amd64", host, "/fairway/", init_path=init))


def kinds(spec: dict[str, Any]) -> set[str]:
    return {entry["type"] for entry in spec["linux"]["namespaces"]}


def mount(spec: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [entry for entry in spec["mounts"] if entry["destination"] == target]
    return dict(found)


def test_control_groups_are_private_where_that_is_possible() -> None:
    first, second = built(host=V1), built(host=V2)
    assert kinds(second) - kinds(first) == {"cgroup"}
    assert kinds(first) == {"pid", "ipc", "uts", "mount", "network"}
    for spec in (first, second):
        assert spec["linux"]["cgroupsPath"] == "/fairway/0123456789abcdef"
        assert {"ro", "nosuid", "noexec", "nodev"} <= set(mount(spec, "/sys/fs/cgroup")["options"])
        assert spec["hostname"] == "0123456789ab"


def test_a_network_is_shared_with_the_host_only_where_that_is_said() -> None:
    """runc refuses settings of a network that is not the container's own."""
    own, shared = built(), built(ContainerSpec(host_network=True))
    assert kinds(own) - kinds(shared) == {"network"}
    assert any(name.startswith("net.") for name in own["linux"]["sysctl"])
    assert not any(name.startswith("net.") for name in shared["linux"]["sysctl"])


@pytest.mark.parametrize(
    ("resources", "host", "expected"),
    [
        (Resources(), V2, {"pids": {"limit": 4096}}),
        (Resources(pids_limit=-1), V2, {}),
        (
            Resources(pids_limit=7, cpu_limit_millis=1500),
            V2,
            {"pids": {"limit": 7}, "cpu": {"period": 100_000, "quota": 150_000}},
        ),
        (Resources(pids_limit=-1, cpu_limit_millis=1), V1, {"cpu": {"period": 100_000, "quota": 1_000}}),
        (Resources(pids_limit=-1, cpu_reserved_millis=250), V1, {"cpu": {"shares": 256}}),
        (Resources(pids_limit=-1, cpu_reserved_millis=1), V1, {"cpu": {"shares": 2}}),
        (Resources(pids_limit=-1, memory_limit_bytes=1 << 26), V1, {"memory": {"limit": 1 << 26}}),
        (Resources(pids_limit=-1, memory_limit_bytes=1 << 26), V2, {"memory": {"limit": 1 << 26, "swap": 1 << 26}}),
        (
            Resources(pids_limit=-1, memory_limit_bytes=1 << 26, memory_reserved_bytes=1 << 25),
            V1,
            {"memory": {"limit": 1 << 26, "reservation": 1 << 25}},
        ),
    ],
)
def test_limits_are_said_in_the_kernels_numbers(
    resources: Resources, host: CgroupHost, expected: dict[str, Any]
) -> None:
    made = oci_spec.resources(resources, host)
    assert made.pop("devices")[0] == {"allow": False, "access": "rwm"}
    assert made == expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (KernelShares(cpus="0-1,3"), {"cpu": {"cpus": "0-1,3", "period": 100_000, "quota": 50_000, "shares": 256}}),
        (KernelShares(cpu_shares=73), {"cpu": {"period": 100_000, "quota": 50_000, "shares": 73}}),
        (KernelShares(cpu_period_us=20_000), {"cpu": {"period": 20_000, "quota": 10_000, "shares": 256}}),
        (KernelShares(swap_bytes=1 << 20), {"memory": {"limit": 1 << 26, "swap": (1 << 26) + (1 << 20)}}),
        (KernelShares(swap_bytes=-1), {"memory": {"limit": 1 << 26, "swap": -1}}),
    ],
)
def test_shares_stand_beside_limits_or_in_place_of_what_is_usual(
    shares: KernelShares, expected: dict[str, Any]
) -> None:
    wanted = Resources(pids_limit=-1, cpu_limit_millis=500, cpu_reserved_millis=250, memory_limit_bytes=1 << 26)
    made = oci_spec.resources(wanted, dataclasses.replace(V2, cores="0-7"), shares)
    assert {name: made[name] for name in expected} == expected


def test_a_core_that_the_host_has_not_is_named() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"cpuset 2-5: this host has no core 4; it has 0-3"):
        oci_spec.resources(Resources(), dataclasses.replace(V2, cores="0-3"), KernelShares(cpus="2-5"))


@pytest.mark.parametrize(
    "resources",
    [Resources(memory_limit_bytes=1_000), Resources(memory_limit_bytes=1 << 24, memory_reserved_bytes=1 << 25)],
)
def test_limits_that_cannot_hold_are_refused(resources: Resources) -> None:
    with pytest.raises(errors.InvalidRequest, match="memory"):
        oci_spec.resources(resources, V2)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ["/entry", "serve"]),
        (None, ["x"], ["/entry", "x"]),
        (None, [], ["/entry"]),
        (["own"], None, ["own"]),
        (["own"], ["x"], ["own", "x"]),
        ([], ["x"], ["x"]),
    ],
)
def test_entrypoint_and_command(entrypoint: list[str] | None, command: list[str] | None, expected: list[str]) -> None:
    spec = ContainerSpec()
    if entrypoint is not None:
        spec.entrypoint.SetInParent()
        spec.entrypoint.values.extend(entrypoint)
    if command is not None:
        spec.command.SetInParent()
        spec.command.values.extend(command)
    assert oci_spec.arguments(spec, IMAGE) == expected


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="no command"):
        oci_spec.arguments(ContainerSpec(), NOTHING)


def test_later_sources_of_the_environment_win() -> None:
    spec = built(ContainerSpec(environment={"B": "own", "C": "=x=\n"}, tty=True), environment={"A": "host"})
    values = dict(line.split("=", 1) for line in spec["process"]["env"])
    wanted = {"PATH": "/p", "A": "host", "B": "own", "C": "=x=\n", "HOME": "/root", "TERM": "xterm"}
    assert values == {**wanted, "HOSTNAME": "0123456789ab"}
    for name in ("", "a=b", "a\0"):
        with pytest.raises(errors.InvalidRequest, match="environment"):
            built(ContainerSpec(environment={name: "x"}))


@pytest.mark.parametrize(("own", "image", "number"), [("", "", 15), ("", "SIGQUIT", 3), ("USR1", "SIGQUIT", 10)])
def test_the_stop_signal(own: str, image: str, number: int) -> None:
    config = ImageConfig("amd64", "linux", (), stop_signal=image)
    assert oci_spec.stop_signal(ContainerSpec(stop_signal=own), config) == number


def test_only_root_begins_with_capabilities() -> None:
    assert built()["process"]["capabilities"]["effective"]
    sets = built(user=ProcessUser(5, 5))["process"]["capabilities"]
    assert sets["bounding"]
    assert not sets["effective"] + sets["permitted"]


def test_an_init_goes_first() -> None:
    spec = built(ContainerSpec(init=True), init_path=Path("/usr/bin/tini-static"))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "/entry", "serve"]
    assert mount(spec, "/sbin/docker-init")["source"] == "/usr/bin/tini-static"
    with pytest.raises(errors.InvalidRequest, match="tini"):
        built(ContainerSpec(init=True))


def test_mounts_outer_ones_first_and_files_last() -> None:
    mounts = (TmpfsMount("/a/b", 5, 0o700, read_only=True), BindMount(Path("/s"), "/a/", read_only=True))
    files = (BindMount(Path("/f"), "/etc/hosts"), BindMount(Path("/g"), "/a"))
    made = oci_mounts.task_mounts(mounts, files, None)
    assert [entry["destination"] for entry in made] == ["/a", "/a/b", "/etc/hosts"]
    assert made[0]["options"] == ["rbind", "rprivate", "ro"]
    assert {"size=5", "mode=700", "ro"} <= set(made[1]["options"])


@pytest.mark.parametrize("target", ["", "/", "relative", "/..", "/a/../.."])
def test_targets_that_are_no_paths_are_refused(target: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="target"):
        oci_mounts.task_mounts((TmpfsMount(target),), (), None)


def test_two_mounts_on_one_target_are_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="two mounts"):
        oci_mounts.task_mounts((TmpfsMount("/a"), TmpfsMount("/a/.")), (), None)


def test_this_host_has_what_is_needed() -> None:
    assert trio.run(features.check) == []
    assert trio.run(features.check, "1.7.2") == []


def test_what_a_host_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (said,) = trio.run(features.check, "1.5.9")
    assert said.startswith("containerd is 1.5.9")
    assert "1.6" in said
    (tmp_path / "runc").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "runc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said_all = " ".join(trio.run(features.check))
    for words in ("containerd is not installed", "containerd-shim-runc-v2 is not installed", "runc does not run"):
        assert words in said_all
    (tmp_path / "runc").write_text("#!/bin/sh\necho runc version 1.0.3\n")
    assert "runc is runc version 1.0.3; 1.1 is needed" in " ".join(trio.run(features.check))


def test_lacking_controllers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "detect", lambda: CgroupHost("v2", ("cpu", "pids"), False))
    assert trio.run(features.check) == ["the control group controller memory is not available (cgroup v2)"]
