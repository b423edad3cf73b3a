"""Single settings of containers, as a process in a real one finds them."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from proto.objects_pb2 import ContainerSpec, DeviceMapping, Ulimit
from runtime import container_settings, devices, errors, seccomp_profile
from runtime.image_model import host_architecture
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, output_of, request_for

RANDOM = Path("/dev/random")
LOOPS = Path("/dev/loop-control")  # runc itself lets everybody have /dev/net/tun


def run(settings: RuntimeSettings, image: LoadedImage, spec: ContainerSpec, script: str) -> list[str]:
    async def body(runtime: Runtime) -> list[str]:
        code, text = await output_of(runtime, request_for(image, "sh", "-c", script, spec=spec))
        assert code == 0, text
        return text.splitlines()

    return drive(settings, body)


def refusal(settings: RuntimeSettings, image: LoadedImage, spec: ContainerSpec) -> str:
    async def body(runtime: Runtime) -> str:
        with pytest.raises(errors.InvalidRequest) as refused:
            await runtime.create(request_for(image, "true", spec=spec))
        return str(refused.value)

    return drive(settings, body)


def test_limits_kernel_settings_memory_and_groups(settings: RuntimeSettings, image: LoadedImage) -> None:
    spec = ContainerSpec(
        ulimits=[Ulimit(name="nofile", soft=123, hard=456), Ulimit(name="core", soft=0, hard=0)],
        sysctls={"net.core.somaxconn": "77", "kernel.msgmax": "9000"},
        shm_size_bytes=32 << 20,
        group_add=["4242"],
        annotations={"org.example.note": "kept"},
        oom_score_adj=321,
        hostname="box",
        domainname="example.org",
    )
    script = (
        "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax;"
        "df -k /dev/shm | tail -1 | awk '{print $2}'; id -G; cat /proc/self/oom_score_adj /proc/sys/kernel/domainname;"
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    )
    found = run(settings, image, spec, script)
    assert found[:6] == ["123", "456", "0", "77", "9000", str(32 << 10)]
    assert "4242" in found[6].split()
    assert found[7:] == ["321", "example.org", "0"]


def test_a_further_process_has_the_same_groups_and_limits(settings: RuntimeSettings, image: LoadedImage) -> None:
    spec = ContainerSpec(ulimits=[Ulimit(name="nofile", soft=99, hard=99)], group_add=["4242"])

    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sleep", "60", spec=spec)
        await runtime.create(request)
        await runtime.start(request.id)
        code, output = await runtime.run_check(request.id, ["sh", "-c", "ulimit -n; id -G"], 10_000)
        assert code == 0
        limit, groups = output.decode().splitlines()
        assert limit == "99" and "4242" in groups.split()
        await runtime.delete(request.id)

    drive(settings, body)


def test_a_filter_of_system_calls_of_ones_own(settings: RuntimeSettings, image: LoadedImage) -> None:
    rules: list[dict[str, Any]] = [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    script = "mkdir /tmp/x 2>&1 || echo refused; touch /f && chmod 700 /f && echo changed"
    found = run(settings, image, ContainerSpec(seccomp_profile=json.dumps(profile)), script)
    assert found[-2:] == ["refused", "changed"]
    # Without any filter the kernel itself answers, and unshare is a matter of capabilities.
    state = run(settings, image, ContainerSpec(seccomp_profile="unconfined"), "grep ^Seccomp: /proc/self/status")
    assert state[0].split()[1] == "0"


@pytest.mark.skipif(not LOOPS.exists(), reason="this host has no loop devices")
def test_a_device_of_the_host(settings: RuntimeSettings, image: LoadedImage) -> None:
    allowed = dataclasses.replace(settings, allowed_devices=(LOOPS,))
    script = "ls -l /dev/mine | cut -c1; cat /dev/mine 2>&1; (echo x >/dev/mine) 2>&1; true"
    mapping = DeviceMapping(source=str(LOOPS), target="/dev/mine", permissions="rw")
    both = run(allowed, image, ContainerSpec(devices=[mapping]), script)
    assert both[0] == "c"
    assert len(both) == 3 and not any("not permitted" in line for line in both)  # the driver itself answers
    reading = DeviceMapping(source=str(LOOPS), target="/dev/mine", permissions="r")
    refused = run(allowed, image, ContainerSpec(devices=[reading]), script)
    assert any("not permitted" in line for line in refused), refused  # read, and no writing
    message = refusal(settings, image, ContainerSpec(devices=[mapping]))
    assert "this host allows nothing" in message and "resources.allowed_devices" in message


def test_which_devices_a_mapping_means(tmp_path: Path) -> None:
    (found,) = devices.resolve([DeviceMapping(source="/dev/random", target="/dev/r", permissions="r")], (RANDOM,))
    number = RANDOM.stat().st_rdev
    assert (found.target, found.kind, found.major, found.minor, found.permissions) == (
        "/dev/r",
        "c",
        os.major(number),
        os.minor(number),
        "r",
    )
    assert found.mode == stat.S_IMODE(RANDOM.stat().st_mode)
    with pytest.raises(errors.InvalidRequest, match="this host allows /dev/random"):
        devices.resolve([DeviceMapping(source="/dev/zero", target="/dev/zero")], (RANDOM,))
    with pytest.raises(errors.InvalidRequest, match="no such device"):
        devices.resolve([DeviceMapping(source="/dev/fwnone", target="/dev/x")], (Path("/dev"),))
    with pytest.raises(errors.InvalidRequest, match="below /dev"):
        devices.resolve([DeviceMapping(source="/etc/passwd", target="/dev/x")], (Path("/"),))
    with pytest.raises(errors.InvalidRequest, match="this host allows"):  # a link that leads out of what is allowed
        devices.resolve([DeviceMapping(source="/dev/stdin", target="/dev/x")], (Path("/dev/stdin_of_nobody"),))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ContainerSpec(sysctls={"kernel.panic": "1"}), "sysctl kernel.panic: it is the whole host's"),
        (ContainerSpec(sysctls={"net/../vm": "1"}), "not the name of a kernel setting"),
        (ContainerSpec(sysctls={"kernel.domainname": "x"}), "say it by domainname"),
        (ContainerSpec(ulimits=[Ulimit(name="frob")]), "'frob' is not one of as, core"),
        (ContainerSpec(ulimits=[Ulimit(name="nofile", soft=5, hard=4)]), "soft limit 5 is above the hard one, 4"),
        (ContainerSpec(annotations={"io.containerd.x": "1"}), "for the container runtime itself"),
        (ContainerSpec(oom_score_adj=-1), "oom_score_adj -1 is not between"),
        (ContainerSpec(group_add=["nobodys"]), "no such group"),
        (ContainerSpec(seccomp_profile="{"), "is not JSON"),
    ],
)
def test_what_no_container_may_say(
    settings: RuntimeSettings, image: LoadedImage, spec: ContainerSpec, words: str
) -> None:
    assert words in refusal(settings, image, spec)


def test_no_limit_is_the_kernels_word_for_it() -> None:
    spec = ContainerSpec(ulimits=[Ulimit(name="memlock", soft=-1, hard=-1)])
    limit = container_settings.NO_LIMIT
    assert container_settings.limits(spec) == [{"type": "RLIMIT_MEMLOCK", "soft": limit, "hard": limit}]


def test_a_profile_as_docker_writes_it() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}, "excludes": {}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["not_arm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
            {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "old", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }

    def names(architecture: str, capabilities: set[str], kernel: str) -> list[str]:
        made = seccomp_profile.from_docker(json.dumps(profile), architecture, frozenset(capabilities), kernel)
        return [name for rule in made["syscalls"] for name in rule["names"]]

    assert names("amd64", set(), "6.1.0-18-amd64") == ["read", "not_arm", "old"]
    assert names("arm64", {"CAP_SYS_ADMIN"}, "6.10.3") == ["read", "new", "arm", "admin"]
    made = seccomp_profile.from_docker(json.dumps(profile), "amd64", frozenset(), "6.1")
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert made["syscalls"][-1] == {"names": ["old"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    own = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[host_architecture()]
    plain = seccomp_profile.from_docker('{"defaultAction": "SCMP_ACT_LOG"}', host_architecture(), frozenset())
    assert own in plain["architectures"]
