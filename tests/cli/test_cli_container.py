"""Keys of a service that set one thing of its containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.compose import container, project, refused
from cli.compose import service as service_keys
from cli.compose.problems import ComposeRefused
from proto import objects_pb2
from tests.cli.test_cli_compose import service


def refusal(lines: str) -> str:
    with pytest.raises(ComposeRefused) as found:
        service(lines)
    return str(found.value)


def test_limits_are_one_number_or_two() -> None:
    found = service("ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, core: -1}").container.ulimits
    assert [(each.name, each.soft, each.hard) for each in found] == [
        ("nproc", 65535, 65535),
        ("nofile", 20000, 40000),
        ("core", -1, -1),
    ]


@pytest.mark.parametrize(
    ("lines", "name", "expected"),
    [
        ("sysctls: {net.core.somaxconn: 1024}", "sysctls", {"net.core.somaxconn": "1024"}),
        ("sysctls: [net.ipv4.tcp_syncookies=0]", "sysctls", {"net.ipv4.tcp_syncookies": "0"}),
        ("annotations: {com.example.foo: bar}", "annotations", {"com.example.foo": "bar"}),
        ("annotations: [com.example.foo=bar]", "annotations", {"com.example.foo": "bar"}),
        ("shm_size: 2gb", "shm_size_bytes", 2 << 30),
        ("shm_size: 10000000", "shm_size_bytes", 10_000_000),
        ("group_add: [mail, 42]", "group_add", ["mail", "42"]),
        ("oom_score_adj: 500", "oom_score_adj", 500),
        ("domainname: example.org", "domainname", "example.org"),
        ("security_opt: [apparmor=mine]", "apparmor_profile", "mine"),
        ("security_opt: ['apparmor:unconfined']", "apparmor_profile", ""),
        ("security_opt: ['seccomp:unconfined']", "seccomp_profile", "unconfined"),
        ("security_opt: [no-new-privileges]", "no_new_privileges", True),
        ("ipc: private", "ulimits", []),
        ("ipc: shareable", "sharing", objects_pb2.Sharing()),
        ("runtime: crun", "isolation", objects_pb2.Isolation(runtime="crun")),
        ("runtime: io.containerd.runc.v2", "isolation", objects_pb2.Isolation()),
        ("userns_mode: private", "isolation", objects_pb2.Isolation(user_namespace=True)),
        ("userns_mode: host", "isolation", objects_pb2.Isolation()),
    ],
)
def test_one_setting(lines: str, name: str, expected: object) -> None:
    found = getattr(service(lines).container, name)
    if isinstance(expected, (dict, list)):
        found = type(expected)(found)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/fuse", ("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/ttyUSB0:/dev/ttyUSB1", ("/dev/ttyUSB0", "/dev/ttyUSB1", "rwm")),
        ("/dev/sda:/dev/xvda:r", ("/dev/sda", "/dev/xvda", "r")),
        ("/dev/sda:rw", ("/dev/sda", "/dev/sda", "rw")),
        ("{source: /dev/a, target: /dev/b, permissions: rw}", ("/dev/a", "/dev/b", "rw")),
        ("{source: /dev/a}", ("/dev/a", "/dev/a", "rwm")),
    ],
)
def test_devices_in_their_forms(text: str, expected: tuple[str, str, str]) -> None:
    (found,) = service(f"devices: [{text if text.startswith('{') else repr(text)}]").container.devices
    assert (found.source, found.target, found.permissions) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("ulimits: {frob: 1}", "services.web.ulimits.frob: 'frob' is not one of as, core"),
        ("ulimits: {nofile: {soft: 1}}", "needs soft and hard"),
        ("ulimits: {nofile: {soft: 9, hard: 8}}", "soft limit 9 is above the hard one, 8"),
        ("sysctls: {vm.swappiness: 1}", "vm.swappiness: it is the whole host's"),
        ("sysctls: [net.core.somaxconn]", "has no value"),
        ("annotations: {io.containerd.x: 1}", "are for the container runtime itself"),
        ("shm_size: 1", "at least 4096 bytes"),
        ("group_add: ['a b']", "neither the name of a group nor a number"),
        ("oom_score_adj: -5", "is negative: the kernel would end other tasks"),
        ("oom_score_adj: 1001", "not between 0 and 1000"),
        ("domainname: 'a b'", "is not a domain name"),
        ("devices: [/etc/passwd]", "'/etc/passwd' is not a path below /dev"),
        ("devices: [/dev/../etc/x]", "is not a path below /dev"),
        ("devices: ['/dev/a:/dev/b:x']", "'x' is not made of r, w and m"),
        ("devices: [class=name]", "neither a path below /dev nor a device of CDI"),
        ("devices: [/dev/a, '/dev/b:/dev/a']", "is a second device at one path"),
        ("devices: [{target: /dev/a}]", "has no source"),
        ("security_opt: [seccomp=nowhere.json]", "nowhere.json does not exist"),
        ("security_opt: [apparmor=]", "is not supported by Fairway"),
        ("ipc: host", "services.web.ipc is not supported by Fairway (tasks share no memory with their host"),
        ("ipc: service:nowhere", "services.web.ipc names the service 'nowhere', which the file does not define"),
        ("ipc: container:db", "services.web.ipc is not supported by Fairway"),
        ("pid: host", "services.web.pid is not supported by Fairway (tasks see no processes of their host"),
        ("pid: service:web", "services.web.pid depends on itself: web -> web"),
        ("pid: 'service:'", "'service:' names no service"),
        ("network_mode: service:db", "tasks share no networks with each other"),
        ("runtime: ../crun", "'../crun' is neither a runtime's program, as crun, nor a shim"),
        ("userns_mode: keep-id", "'keep-id' is neither private"),
        ("label_file: nowhere.labels", "nowhere.labels does not exist"),
        ("platform: windows/amd64", "is not a platform that hosts have"),
    ],
)
def test_what_is_wrong_is_said(lines: str, words: str) -> None:
    message = refusal(lines)
    assert words in message
    assert message.startswith("compose.yaml:4: services.web.")


@pytest.mark.parametrize("key", sorted(service_keys.UNSUPPORTED))
def test_keys_without_a_meaning_are_refused_with_a_reason(key: str) -> None:
    message = refusal(f"{key}: anything")
    assert (
        f"compose.yaml:4: services.web.{key} is not supported by Fairway ({service_keys.UNSUPPORTED[key]})" in message
    )


def test_no_key_is_both_taken_and_refused() -> None:
    assert not refused.REFUSED.keys() & container.KEYS.keys()


def test_a_platform_is_a_constraint() -> None:
    assert list(service("platform: linux/arm64/v8").constraints) == ["node.platform.arch == arm64"]
    assert not service("platform: linux").constraints


def test_files_beside_the_compose_file(tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
    (tmp_path / "profile.json").write_text(json.dumps(profile, indent=4))
    (tmp_path / "bad.json").write_text('{"defaultAction": "frob"}')
    (tmp_path / "a.labels").write_text("one=1\ntwo=2\n")
    file = tmp_path / "compose.yaml"
    text = "services:\n  web:\n    image: web\n    labels: {two: own}\n    label_file: a.labels\n"
    file.write_text(text + "    security_opt: ['seccomp:profile.json']\n")
    found: objects_pb2.ContainerSpec = project.load([file], {}).spec.services["web"].container
    assert json.loads(found.seccomp_profile) == profile
    assert " " not in found.seccomp_profile
    assert dict(found.labels) == {"one": "1", "two": "own"}
    file.write_text(text + "    security_opt: ['seccomp:bad.json']\n")
    with pytest.raises(ComposeRefused, match=r"bad\.json: the seccomp profile has no defaultAction"):
        project.load([file], {})
