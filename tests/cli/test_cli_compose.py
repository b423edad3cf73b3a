"""Compose files: what they become, and how they are refused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import control_pb2, objects_pb2

Mount = objects_pb2.Mount
PortSpec = objects_pb2.PortSpec


def parse(text: str, **variables: str) -> project.Project:
    return project.parse(textwrap.dedent(text), "compose.yaml", Path("/somewhere/shop"), variables)


def service(lines: str, **variables: str) -> objects_pb2.ServiceSpec:
    """A file with one service "web" whose keys are `lines`, and volumes and networks to refer to."""
    text = "services:\n  web:\n    image: web:1\n" + textwrap.indent(textwrap.dedent(lines), "    ")
    text += "\n  db: {image: db, restart: 'no'}\nvolumes: {data: {}}\nnetworks: {front: {}}\n"
    return project.parse(text, "compose.yaml", Path("/x/shop"), variables).spec.services["web"]


def problems(text: str, **variables: str) -> list[str]:
    with pytest.raises(ComposeRefused) as refused:
        parse(text, **variables)
    return str(refused.value).splitlines()


def test_defaults_are_those_docker_users_expect() -> None:
    spec = service("")
    assert spec.replicas == 1
    assert spec.container.stop_grace_ms == 10_000
    assert spec.restart.condition == objects_pb2.RestartPolicy.CONDITION_ANY
    assert list(spec.networks) == ["default"]
    assert not spec.container.HasField("command")
    assert not spec.container.HasField("healthcheck")


@pytest.mark.parametrize(
    ("lines", "path", "expected"),
    [
        ("command: sh -c 'echo hi'", "container.command.values", ["sh", "-c", "echo hi"]),
        ("command: [a, 'b c', 3]", "container.command.values", ["a", "b c", "3"]),
        ("entrypoint: ['']", "container.entrypoint.values", [""]),
        ("environment: {A: 1.0, B: yes, C: ''}", "container.environment", {"A": "1.0", "B": "yes", "C": ""}),
        ("environment: [A=b=c, HOST, GONE]", "container.environment", {"A": "b=c", "HOST": "h"}),
        ("user: 1000:1000", "container.user", "1000:1000"),
        ("working_dir: /srv", "container.working_dir", "/srv"),
        ("hostname: a.b", "container.hostname", "a.b"),
        ("read_only: true", "container.read_only", True),
        ("init: true", "container.init", True),
        ("cap_add: [CAP_NET_ADMIN, sys_time]", "container.cap_add", ["NET_ADMIN", "SYS_TIME"]),
        ("cap_drop: [ALL]", "container.cap_drop", ["ALL"]),
        ("security_opt: ['no-new-privileges:true']", "container.no_new_privileges", True),
        ("stop_signal: 10", "container.stop_signal", "SIGUSR1"),
        ("stop_signal: RTMIN+3", "container.stop_signal", "SIGRTMIN+3"),
        ("stop_grace_period: 1m30s", "container.stop_grace_ms", 90_000),
        ("stop_grace_period: 0s", "container.stop_grace_ms", 1),
        ("labels: [a=b, c]", "container.labels", {"a": "b", "c": ""}),
        ("scale: 4", "replicas", 4),
        ("deploy: {replicas: 0}", "replicas", 0),
        ("deploy: {replicas: '${N:-7}'}", "replicas", 7),
        ("restart: always", "restart.condition", objects_pb2.RestartPolicy.CONDITION_ANY),
        ("restart: no", "restart.condition", objects_pb2.RestartPolicy.CONDITION_NONE),
        ("restart: on-failure:3", "restart.max_attempts", 3),
        ("deploy: {restart_policy: {condition: none}}", "restart.condition", 2),
        ("deploy: {restart_policy: {delay: 5s}}", "restart.delay_ms", 5_000),
        ("deploy: {resources: {limits: {cpus: '0.5'}}}", "resources.cpu_limit_millis", 500),
        ("deploy: {resources: {limits: {memory: 64M, pids: 9}}}", "resources.memory_limit_bytes", 64 << 20),
        ("deploy: {resources: {reservations: {memory: 1.5g}}}", "resources.memory_reserved_bytes", 3 << 29),
        ("mem_limit: 512m", "resources.memory_limit_bytes", 512 << 20),
        ("cpus: 1.5", "resources.cpu_limit_millis", 1500),
        ("pids_limit: -1", "resources.pids_limit", -1),
        ("deploy: {placement: {constraints: [node.id!=x]}}", "constraints", ["node.id != x"]),
        ("networks: [front, default]", "networks", ["front", "default"]),
        ("networks: {front: }", "networks", ["front"]),
        ("x-note: {anything: [goes]}", "replicas", 1),
        ("x-fairway: {stateful: true}", "stateful", objects_pb2.Stateful()),
        ("x-fairway: {stateful: {order: unordered}}", "stateful.unordered", True),
    ],
)  # fmt: skip
def test_a_key_becomes_its_field(lines: str, path: str, expected: object) -> None:
    found: object = service(lines, HOST="h")
    for name in path.split("."):
        found = getattr(found, name)
    if isinstance(expected, list):
        found = list(found)  # type: ignore[call-overload]
    elif isinstance(expected, dict):
        found = dict(found)  # type: ignore[call-overload]
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'8080:80'", [("tcp", 80, 8080)]),
        ("53:53/udp", [("udp", 53, 53)]),
        ("9000-9001:80-81", [("tcp", 80, 9000), ("tcp", 81, 9001)]),
        ("'80'", [("tcp", 80, 0)]),
        ("{target: 80, published: '8080', protocol: udp}", [("udp", 80, 8080)]),
        ("{target: 80, mode: ingress}", [("tcp", 80, 0)]),
        ("'8080:80', '8080:80'", [("tcp", 80, 8080)]),
        ("{target: 80-81, published: 9000-9001}", [("tcp", 80, 9000), ("tcp", 81, 9001)]),
        ("9000:9000/sctp, '80'", [("sctp", 9000, 9000), ("tcp", 80, 0)]),
    ],
)
def test_ports(text: str, expected: list[tuple[str, int, int]]) -> None:
    spec = service(f"ports: [{text}]\nexpose: ['80']" if "udp" not in text else f"ports: [{text}]")
    assert [(port.protocol, port.target, port.published) for port in spec.ports] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'127.0.0.1:8080:80'", PortSpec(published=8080, host_ip="127.0.0.1")),
        ("'[2001:DB8::0001]:8080:80'", PortSpec(published=8080, host_ip="2001:db8::1")),
        ("'0.0.0.0:8080:80'", PortSpec(published=8080)),
        ("{target: 80, published: 8080, host_ip: 192.0.2.1}", PortSpec(published=8080, host_ip="192.0.2.1")),
        ("{target: 80, published: 8080, mode: host}", PortSpec(published=8080, mode=PortSpec.MODE_HOST)),
        ("{target: 80, published: 8080, name: web}", PortSpec(published=8080, name="web")),
    ],
)
def test_where_a_port_is_published(text: str, expected: PortSpec) -> None:
    expected.MergeFrom(PortSpec(protocol="tcp", target=80))
    assert list(service(f"ports: [{text}]").ports) == [expected]


def test_exposed_ranges_are_balanced_and_not_published() -> None:
    spec = service("expose: ['3000-3002', 53/udp]")
    found = [(port.protocol, port.target, port.published) for port in spec.ports]
    assert found == [("tcp", 3000, 0), ("tcp", 3001, 0), ("tcp", 3002, 0), ("udp", 53, 0)]


def test_balancing_and_floating_addresses() -> None:
    spec = service(
        """\
        x-fairway:
          balance:
            policy: weighted
            local_first: true
            weights:
              - {constraint: node.labels.size==big, weight: 3}
          floating_addresses: [192.0.2.10, 2001:DB8::10]
        deploy: {endpoint_mode: dnsrr}
        """
    )
    assert spec.balance.policy == objects_pb2.BALANCE_POLICY_WEIGHTED
    assert spec.balance.local_first
    assert [(each.constraint, each.weight) for each in spec.balance.weights] == [("node.labels.size == big", 3)]
    assert list(spec.floating_addresses) == ["192.0.2.10", "2001:db8::10"]
    assert spec.endpoint_mode == objects_pb2.ENDPOINT_MODE_DNSRR
    assert service("").endpoint_mode == objects_pb2.ENDPOINT_MODE_VIP


def test_host_ports_of_two_services_may_meet() -> None:
    host_port = "ports: [{target: 80, published: 80, mode: host}]"
    read = parse(f"services: {{a: {{image: a, {host_port}}}, b: {{image: b, {host_port}}}}}")
    assert sorted(read.spec.services) == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("volumes: ['data:/d']", Mount(kind=Mount.KIND_VOLUME, source="data", target="/d")),
        ("volumes: ['data:/d/:ro']", Mount(kind=Mount.KIND_VOLUME, source="data", target="/d", read_only=True)),
        ("volumes: [/d]", Mount(kind=Mount.KIND_VOLUME, target="/d")),
        ("volumes: ['/srv/x:/d:rw']", Mount(kind=Mount.KIND_BIND, source="/srv/x", target="/d")),
        ("volumes: [{type: volume, source: data, target: /d}]",
         Mount(kind=Mount.KIND_VOLUME, source="data", target="/d")),
        ("volumes: [{type: bind, source: /s, target: /d, read_only: true}]",
         Mount(kind=Mount.KIND_BIND, source="/s", target="/d", read_only=True)),
        ("volumes: [{type: tmpfs, target: /d, tmpfs: {size: 1m, mode: 0700}}]",
         Mount(kind=Mount.KIND_TMPFS, target="/d", tmpfs_size_bytes=1 << 20, tmpfs_mode=0o700)),
        ("tmpfs: /run", Mount(kind=Mount.KIND_TMPFS, target="/run")),
        ("tmpfs: ['/run:size=64m,mode=755']",
         Mount(kind=Mount.KIND_TMPFS, target="/run", tmpfs_size_bytes=64 << 20, tmpfs_mode=0o755)),
    ],
)  # fmt: skip
def test_mounts(lines: str, expected: objects_pb2.Mount) -> None:
    assert list(service(lines).container.mounts) == [expected]


@pytest.mark.parametrize(
    ("check", "test"),
    [
        ("{test: curl x}", ["CMD-SHELL", "curl x"]),
        ("{test: [CMD, curl, x]}", ["CMD", "curl", "x"]),
        ("{test: [NONE]}", ["NONE"]),
        ("{disable: true}", ["NONE"]),
    ],
)
def test_healthchecks(check: str, test: list[str]) -> None:
    assert list(service(f"healthcheck: {check}").container.healthcheck.test) == test


def test_healthcheck_times_have_dockers_defaults() -> None:
    check = service("healthcheck: {test: a, interval: 5s, retries: 2}").container.healthcheck
    assert (check.interval_ms, check.timeout_ms, check.retries, check.start_period_ms) == (
        5_000,
        30_000,
        2,
        0,
    )


def test_dependencies_and_aliases() -> None:
    spec = service("depends_on: {db: {condition: service_completed_successfully}}\nnetworks: {front: {aliases: [www]}}")
    assert spec.depends_on[0].condition == objects_pb2.Dependency.CONDITION_COMPLETED
    assert list(spec.network_aliases["front"].values) == ["www"]


def test_what_others_wait_for_to_complete_runs_once_unless_the_file_says_otherwise() -> None:
    text = """\
        services:
          web: {image: w, depends_on: {job: {condition: service_completed_successfully}}}
          job: {image: j%s}
        """
    job = parse(text % "").spec.services["job"]
    assert job.restart.condition == objects_pb2.RestartPolicy.CONDITION_NONE
    assert "waits for 'job' to complete" in problems(text % ", restart: always")[0]


REFUSED = [
    ("blkio_config: {}", "services.web.blkio_config is not supported by Fairway"),
    ("build: .", "fairway image load"),
    ("privileged: true", "cap_add"),
    ("ports: ['127.0.0.1::80']", "names an address and no port"),
    ("ports: ['[::1]:80:80']", "over IPv4 only; use 127.0.0.1"),
    ("ports: ['example.org:80:80']", "is not an IP address of hosts"),
    ("ports: [{target: 80, published: 80, host_ip: x}]", "services.web.ports[0].host_ip: 'x' is not an IP"),
    ("ports: ['10.0.0.1:80:80', '80:81']", "publishes 80/tcp a second time"),
    ("ports: [{target: 80, published: 80-81}]", "2 published and 1 target"),
    ("ports: ['80:80/icmp']", "must be tcp, udp or sctp"),
    ("ports: ['80:80']\ndeploy: {endpoint_mode: dnsrr}", "services.web.ports[0] publishes 80/tcp on every host"),
    ("deploy: {endpoint_mode: lvs}", "'lvs' is neither vip nor dnsrr"),
    ("x-fairway: {balanse: {}}", "services.web.x-fairway.balanse is not supported"),
    ("x-fairway: {balance: {policy: fastest}}", "'fastest' is not one of random, round-robin"),
    ("x-fairway: {balance: {policy: weighted}}", "has policy weighted and no weights"),
    ("x-fairway: {balance: {weights: []}}", "has no effect with policy random"),
    ("x-fairway: {balance: {load: cpu}}", "has no effect with policy random"),
    ("x-fairway: {balance: {policy: weighted, weights: [{constraint: big, weight: 2}]}}", "'big' is not a constraint"),
    ("x-fairway: {balance: {policy: weighted, weights: [{constraint: node.id == a, weight: 0}]}}", "between 1 and 100"),
    ("x-fairway: {floating_addresses: [127.0.0.1]}", "cannot be an address that moves"),
    ("ports: ['99999:80']", "'99999' is not a port"),
    ("ports: ['80-81:90']", "2 published and 1 target ports"),
    ("ports: [{target: 80, mode: host}]", "has mode host and no published port"),
    ("ports: [{target: 80, mode: direct}]", "'direct' is neither ingress nor host"),
    ("ports: ['80:80', '80:81']", "publishes 80/tcp a second time"),
    ("volumes: ['./a:/b']", "absolute path that exists on the host"),
    ("volumes: ['nope:/b']", "names the volume 'nope'"),
    ("volumes: ['data:b']", "'b' is not an absolute path"),
    ("volumes: ['data:/a', 'data:/a/']", "second thing at /a"),
    ("volumes: ['data:/a:z']", "mount option 'z'"),
    ("networks: [nope]", "names the network 'nope'"),
    ("networks: {front: {ipv4_address: 1.2.3.4}}", "ipv4_address is not supported"),
    ("depends_on: [nope]", "names the service 'nope'"),
    ("depends_on: [web]", "depends on itself: web -> web"),
    ("depends_on: {db: {condition: maybe}}", "'maybe' is not one of"),
    ("deploy: {replicas: -1}", "not between 0 and"),
    ("deploy: {replicas: many}", "not a whole number"),
    ("deploy: {mode: everywhere}", "not one of replicated, global, replicated-job"),
    ("deploy: {mode: global, replicas: 3}", "has no meaning with a global mode"),
    ("deploy: {mode: global}\nx-fairway: {stateful: true}", "x-fairway.stateful is for replicated services"),
    ("x-fairway: {stateful: {order: odd}}", "'odd' is neither ordered nor unordered"),
    ("scale: 3\ndeploy: {mode: global}", "has no meaning with a global mode"),
    ("deploy: {replicas: 2}\nscale: 3", "keep one of the two"),
    ("deploy: {resources: {limits: {memory: 1x}}}", "'1x' is not a size"),
    ("deploy: {resources: {limits: {memory: 8m}, reservations: {memory: 9m}}}", "more memory than its limit"),
    ("deploy: {placement: {constraints: [bad]}}", "node.labels.disk == ssd"),
    ("stop_grace_period: 10", "not a duration"),
    ("stop_signal: SIGNOPE", "not a signal"),
    ("cap_add: [FLY]", "'FLY' is not a capability"),
    ("security_opt: [label=disable]", "'label=disable' is not supported by Fairway (no-new-privileges"),
    ("healthcheck: {interval: 5s}", "has no test"),
    ("healthcheck: {test: [curl]}", "must begin with CMD"),
    ("read_only: perhaps", "neither true nor false"),
    ('command: "sh \'x"', "cannot be split"),
    ("restart: sometimes", "on-failure:3"),
    ("env_file: nowhere.env", "does not exist"),
    ("user: [a]", "must be one value"),
    ("environment: 3", "must be a mapping"),
]


@pytest.mark.parametrize(("lines", "words"), REFUSED)
def test_what_is_wrong_is_named_with_its_line(lines: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        service(lines)
    message = str(refused.value)
    assert words in message
    assert message.startswith(("compose.yaml:3:", "compose.yaml:4:", "compose.yaml:5:", "compose.yaml:2:"))


def test_all_problems_come_at_once_sorted_by_line() -> None:
    found = problems(
        """\
        services:
          b: {image: b, wrong: 1}
          a:
            image: a
            also: 2
        models: {}
        """
    )
    assert [line.split(":")[1] for line in found] == ["2", "5", "6"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("services: {}", "has no services"),
        ("services: [a]", "must be a mapping"),
        ("a: [1,", "not valid YAML"),
        ("services: {a: {image: a, image: b}}", "is written twice"),
        ("services: {a: {}}", "services.a has no image"),
        ("services: {Bad: {image: a}}", "lower-case"),
        ("services: {a: !x {image: a}}", "YAML tag !x"),
        ("services: {a: &x {image: a, depends_on: [*x]}}", "contains it"),
        ("name: BAD\nservices: {a: {image: a}}", "an app's name is"),
        ("services: {a: {image: a}}\nvolumes: {v: {external: maybe}}", "volumes.v.external: 'maybe' is neither"),
        ("services: {a: {image: a}}\nvolumes: {v: {driver_opts: {a: b}}}", "driver_opts is not supported"),
        ("services: {a: {image: a}}\nnetworks: {n: {driver: macvlan}}", "'macvlan' is not supported"),
        ("services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [a]}}", "a -> b -> a"),
        ("services: {a: {image: '${X:?set it}'}}", "X is required: set it"),
        ("services: {a: {image: '$1'}}", "write '$$'"),
        ("services: {a: {image: a, ports: ['1:1']}, b: {image: b, ports: ['1:2']}}", "as services.a does"),
    ],
)
def test_files_that_are_wrong_as_a_whole(text: str, words: str) -> None:
    assert any(words in line for line in problems(text))


def test_expanding_aliases_is_bounded() -> None:
    lines = ["x-0: &l0 [a, b, c, d, e, f, g, h, i, j]"]
    lines += [f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "expand to more than" in problems("\n".join(lines))[0]


def test_anchors_and_merges_work() -> None:
    app = parse(
        """\
        x-base: &base {image: base, user: root}
        services:
          a: {<<: *base, user: me}
          b: *base
        """
    ).spec
    assert (app.services["a"].container.image, app.services["a"].container.user) == ("base", "me")
    assert app.services["b"].container.user == "root"


@pytest.mark.parametrize(
    ("given", "top", "folder", "expected"),
    [("cli", "name: top\n", "x", "cli"), ("", "name: top\n", "x", "top"), ("", "", "My App", "myapp")],
)
def test_the_apps_name(given: str, top: str, folder: str, expected: str) -> None:
    read = project.parse(f"{top}services: {{a: {{image: a}}}}", "f", Path("/y") / folder, {}, project.Choices(given))
    assert read.spec.name == expected


def test_dotenv_and_env_files_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=2\nHERE=file\n")
    (tmp_path / "a.env").write_text("# comment\nexport ONE='1 $X'\nTWO=\"2\\n\"\nTHREE=${HERE} # note\n")
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services: {a: {image: 'a:$TAG', env_file: [a.env, {path: gone.env, required: false}],"
        " environment: {TWO: two}}}"
    )
    container = project.load([file], {"HERE": "process"}, project.Choices("app")).spec.services["a"].container
    assert container.image == "a:2"
    assert dict(container.environment) == {"ONE": "1 $X", "TWO": "two", "THREE": "process"}


def test_warnings_say_what_has_no_effect() -> None:
    read = parse("version: '3'\nservices: {a: {image: 'a$NOTHING', ports: ['80']}}")
    assert len(read.warnings) == 3
    assert any("NOTHING is not set" in warning for warning in read.warnings)


def test_labels_of_the_service_and_internal_networks() -> None:
    app: control_pb2.AppSpec = parse(
        "services: {a: {image: a, networks: [n], deploy: {labels: [k=v]}}}\nnetworks: {n: {internal: true}}"
    ).spec
    assert dict(app.service_labels["a"].values) == {"k": "v"}
    assert app.networks["n"].internal


def test_ipv6_of_a_network_may_be_left_alone_shut_off_or_asked_for() -> None:
    app = parse(
        "services: {a: {image: a, networks: [n, off, on]}}\nnetworks:\n  n: {}\n"
        "  off: {enable_ipv6: false}\n  on:\n    enable_ipv6: true\n"
    ).spec
    found = {name: (network.ipv6_disabled, network.ipv6_wanted_line) for name, network in app.networks.items()}
    assert found == {"n": (False, 0), "off": (True, 0), "on": (False, 6)}
    assert "default" not in app.networks
