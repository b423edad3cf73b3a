"""Compose projects of several files: merged, extended, included, and with profiles."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from cli.compose_files import compose_paths
from proto import control_pb2, objects_pb2


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def load(
    folder: Path, *names: str, environment: Mapping[str, str] | None = None, profiles: tuple[str, ...] = ()
) -> project.Project:
    return project.load([folder / name for name in names], environment or {}, project.Choices("app", profiles))


def refusal(folder: Path, *names: str, profiles: tuple[str, ...] = ()) -> str:
    with pytest.raises(ComposeRefused) as refused:
        load(folder, *names, profiles=profiles)
    return str(refused.value).replace(f"{folder}/", "")


def both(folder: Path, first: str, second: str) -> objects_pb2.ServiceSpec:
    """The service "web" of two files that say these keys of it."""
    top = "\nnetworks: {front: {}, back: {}}\nvolumes: {data: {}, other: {}}\n"
    for name, lines in (("1.yaml", first), ("2.yaml", second)):
        body = textwrap.indent(textwrap.dedent(lines), "    ")
        (folder / name).write_text(f"services:\n  web:\n    image: web\n{body}\n  db: {{image: db}}{top}")
    return load(folder, "1.yaml", "2.yaml").spec.services["web"]


def found(spec: objects_pb2.ServiceSpec, path: str) -> object:
    value: object = spec
    for part in path.split("."):
        value = getattr(value, part)
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, (str, int, bool)) else list(value)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("first", "second", "path", "expected"),
    [
        ("command: [a, b]", "command: [c]", "container.command.values", ["c"]),
        ("user: a", "user: b", "container.user", "b"),
        ("user: a", "user: !reset null", "container.user", ""),
        ("user: a", "stop_signal: KILL", "container.user", "a"),
        (
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C=4]",
            "container.environment",
            {"A": "1", "B": "3", "C": "4"},
        ),
        ("environment: {A: 1}", "environment: !override {B: 2}", "container.environment", {"B": "2"}),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "container.environment", {"B": "2"}),
        ("labels: [a=1]", "labels: {a: 2}", "container.labels", {"a": "2"}),
        ("cap_add: [CHOWN]", "cap_add: [KILL, CHOWN]", "container.cap_add", ["CHOWN", "KILL"]),
        ("cap_add: [CHOWN]", "cap_add: !override [KILL]", "container.cap_add", ["KILL"]),
        ("cap_add: [CHOWN]", "cap_add: !reset []", "container.cap_add", []),
        ("cap_add: [CHOWN]", "cap_add:", "container.cap_add", ["CHOWN"]),
        ("dns: 10.0.0.1", "dns: [10.0.0.2]", "container.dns_servers", ["10.0.0.1", "10.0.0.2"]),
        ("networks: [front]", "networks: {back: {aliases: [b]}}", "networks", ["front", "back"]),
        ("networks: [front]", "networks: [back, front]", "networks", ["front", "back"]),
        ("deploy: {replicas: 2}", "deploy: {resources: {limits: {cpus: 1}}}", "replicas", 2),
        (
            "healthcheck: {test: a, retries: 7}",
            "healthcheck: {test: [CMD, b]}",
            "container.healthcheck.test",
            ["CMD", "b"],
        ),
        ("healthcheck: {test: a, retries: 7}", "healthcheck: {test: b}", "container.healthcheck.retries", 7),
    ],
)
def test_a_later_file_is_merged_over_an_earlier(
    tmp_path: Path, first: str, second: str, path: str, expected: object
) -> None:
    assert found(both(tmp_path, first, second), path) == expected


def test_lists_of_ports_volumes_and_addresses_are_merged_by_what_they_are_of(tmp_path: Path) -> None:
    spec = both(
        tmp_path,
        """
        ports: ["8080:80", "127.0.0.1:9000:90"]
        volumes: ["data:/data", "data:/more"]
        extra_hosts: ["a=10.0.0.1"]
        """,
        """
        ports: [{target: 80, published: 8080, name: web}, "8081:80"]
        volumes: ["other:/data:ro"]
        extra_hosts: {a: 10.0.0.2}
        """,
    )
    assert [(port.published, port.target, port.name) for port in spec.ports] == [
        (8080, 80, "web"),
        (9000, 90, ""),
        (8081, 80, ""),
    ]
    assert [(mount.source, mount.target, mount.read_only) for mount in spec.container.mounts] == [
        ("other", "/data", True),
        ("data", "/more", False),
    ]
    assert [each.address for each in spec.container.extra_hosts] == ["10.0.0.1", "10.0.0.2"]


def test_what_is_wrong_is_said_of_the_file_that_says_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "1.yaml": "services:\n  web:\n    image: a\n    frob: 1\n    dns: [x]\n",
            "2.yaml": "services:\n  web:\n    depends_on: [nobody]\n    cap_add: {a: b}\n    volumes: {}\n",
        },
    )
    assert refusal(tmp_path, "1.yaml", "2.yaml").splitlines() == [
        "1.yaml:4: services.web.frob is not supported by Fairway",
        "1.yaml:5: services.web.dns[0]: 'x' is not the IP address of a name server",
        "2.yaml:3: services.web.depends_on[0] names the service 'nobody', which the file does not define",
        "2.yaml:4: services.web.cap_add must be a list",
        "2.yaml:5: services.web.volumes must be a list",
    ]
    write(tmp_path, {"3.yaml": "services:\n  web:\n    dns: {}\n    environment: 5\n", "4.yaml": "services: {web: [}"})
    write(tmp_path, {"0.yaml": "services:\n  web: {image: a, environment: {A: b}}\n"})
    text = "services.web.environment is one value here and a mapping in 0.yaml:2; only alike values can be merged"
    assert text in refusal(tmp_path, "0.yaml", "3.yaml")
    assert refusal(tmp_path, "0.yaml", "4.yaml").startswith("4.yaml:1: this is not valid YAML")


def test_a_service_begins_with_what_it_extends(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "compose.yaml": """
                services:
                  web:
                    extends: {service: base, file: shared/base.yaml}
                    environment: {B: mine}
                    ports: !reset []
                  worker:
                    extends: web
                    command: [work]
                """,
            "shared/base.yaml": """
                services:
                  root: {image: root, environment: {A: root, B: root}}
                  base:
                    extends: root
                    ports: ["80:80"]
                    env_file: base.env
                """,
            "shared/base.env": "FROM=base\n",
        },
    )
    spec = load(tmp_path, "compose.yaml").spec
    assert sorted(spec.services) == ["web", "worker"]
    worker = spec.services["worker"].container
    assert (worker.image, list(worker.command.values)) == ("root", ["work"])
    assert dict(worker.environment) == {"A": "root", "B": "mine", "FROM": "base"}
    assert not spec.services["web"].ports


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ("a", "leads back to itself: a -> a"),
        ("b", "leads back to itself: a -> b -> a"),
        ("nobody", "compose.yaml:2: services.a.extends names the service 'nobody', which"),
        ("{service: x, file: gone.yaml}", "compose.yaml:2: extends.file: gone.yaml does not exist"),
        ("{service: x, file: bad.yaml}", "bad.yaml:3: services.a.frob is not supported"),
        ("{file: bad.yaml}", "must name a service"),
        ("{service: x, frob: 1}", "services.a.extends.frob is not supported"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, extends: str, words: str) -> None:
    (tmp_path / "bad.yaml").write_text("services:\n  x:\n    frob: 1\n")
    text = f"services:\n  a: {{image: a, extends: {extends}}}\n  b: {{image: b, extends: a}}\n"
    (tmp_path / "compose.yaml").write_text(text)
    assert words in refusal(tmp_path, "compose.yaml")


def test_included_files_have_folders_and_variables_of_their_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "compose.yaml": """
                include:
                  - db/compose.yaml
                  - {path: [cache/1.yaml, cache/2.yaml], env_file: cache.env, project_directory: .}
                services:
                  web: {image: "web:${TAG}", depends_on: [db, cache], networks: [inner]}
                """,
            ".env": "TAG=outer\n",
            "db/compose.yaml": """
                name: ignored
                services:
                  db: {image: "db:${TAG}-${OWN}", env_file: own.env, networks: [inner]}
                networks: {inner: {}}
                """,
            "db/.env": "TAG=inner\nOWN=db\n",
            "db/own.env": "A=db\n",
            "cache/1.yaml": "services: {cache: {image: 'cache:${OWN}', env_file: root.env}}",
            "cache/2.yaml": "services: {cache: {user: me}}",
            "cache.env": "OWN=cache\n",
            "root.env": "A=root\n",
        },
    )
    services = load(tmp_path, "compose.yaml").spec.services
    assert {name: each.container.image for name, each in services.items()} == {
        "web": "web:outer",
        "db": "db:outer-db",  # what is set around it wins
        "cache": "cache:cache",
    }
    assert dict(services["db"].container.environment) == {"A": "db"}
    assert dict(services["cache"].container.environment) == {"A": "root"}
    assert services["cache"].container.user == "me"


def test_what_cannot_be_included(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "compose.yaml": "include: [a.yaml]\nservices:\n  db: {image: mine}\n  same: {image: same}\n",
            "a.yaml": "services:\n  db: {image: theirs}\n  same: {image: same}\n  x: {frob: 1, image: x}\n",
            "loop.yaml": "include:\n  - loop.yaml\n",
            "gone.yaml": "include:\n  - nowhere.yaml\n  - {path: a.yaml, frob: 1}\n",
        },
    )
    assert refusal(tmp_path, "compose.yaml").splitlines() == [
        "compose.yaml:3: services.db is defined by the included a.yaml:2 too; neither overrides the other",
        "a.yaml:4: services.x.frob is not supported by Fairway",
    ]
    assert "loop.yaml:2: include[0]: loop.yaml includes itself" in refusal(tmp_path, "loop.yaml")
    assert refusal(tmp_path, "gone.yaml").splitlines()[:2] == [
        "gone.yaml:2: include[0]: nowhere.yaml does not exist",
        "gone.yaml:3: include[1].frob is not supported by Fairway",
    ]


PROFILES = """
services:
  web: {image: web, depends_on: {debug: {required: false}}}
  debug: {image: debug, profiles: [debug, all]}
  load: {image: load, profiles: [all], depends_on: [debug]}
"""


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        ((), "", ["web"]),
        (("debug",), "", ["debug", "web"]),
        ((), "debug, all", ["debug", "load", "web"]),
        (("*",), "", ["debug", "load", "web"]),
    ],
)
def test_services_of_profiles_are_there_when_asked_for(
    tmp_path: Path, given: tuple[str, ...], variable: str, expected: list[str]
) -> None:
    write(tmp_path, {"compose.yaml": PROFILES})
    environment = {"COMPOSE_PROFILES": variable}
    spec: control_pb2.AppSpec = load(tmp_path, "compose.yaml", environment=environment, profiles=given).spec
    assert sorted(spec.services) == expected
    assert [each.service for each in spec.services["web"].depends_on] == (["debug"] if "debug" in expected else [])


def test_what_is_wrong_with_profiles(tmp_path: Path) -> None:
    text = "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, profiles: [p, '!']}\n"
    write(tmp_path, {"compose.yaml": text, "none.yaml": "services:\n  b: {image: b, profiles: [p]}\n"})
    assert refusal(tmp_path, "compose.yaml").splitlines() == [
        "compose.yaml:2: services.a.depends_on[0] names the service 'b', which is there with --profile !, p only",
        "compose.yaml:3: services.b.profiles[1]: '!' is not the name of a profile (letters, digits, _, . and -)",
    ]
    assert refusal(tmp_path, "none.yaml").endswith("name one with --profile: p")
    assert "no service has the profile q" in "".join(load(tmp_path, "none.yaml", profiles=("p", "q")).warnings)


def test_the_files_are_found_as_compose_finds_them(tmp_path: Path) -> None:
    write(tmp_path, {"docker-compose.yml": "", "docker-compose.override.yml": "", "x": ""})
    usual = [tmp_path / "docker-compose.yml", tmp_path / "docker-compose.override.yml"]
    assert compose_paths([], {}, tmp_path) == usual
    write(tmp_path, {"compose.yaml": ""})
    assert compose_paths([], {}, tmp_path)[0] == tmp_path / "compose.yaml"
    assert compose_paths([], {"COMPOSE_FILE": "a:b"}, tmp_path) == [Path("a"), Path("b")]
    assert compose_paths([], {"COMPOSE_FILE": "a,b", "COMPOSE_PATH_SEPARATOR": ","}, tmp_path) == [Path("a"), Path("b")]
    assert compose_paths(["c"], {"COMPOSE_FILE": "a:b"}, tmp_path) == [Path("c")]
    assert compose_paths([], {}, tmp_path / "empty") == []


def test_standard_input_is_a_file_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Shop"
    write(folder, {".env": "TAG=7\n", "web.env": "LEVEL=high\n", "over.yaml": "services: {web: {user: app}}"})
    monkeypatch.chdir(folder)
    text = b"services: {web: {image: 'web:${TAG}', env_file: web.env}}"

    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(text)
    app = project.load([Path("-"), Path("over.yaml")], {}).spec
    container = app.services["web"].container
    assert (app.name, container.image, container.user) == ("shop", "web:7", "app")
    assert container.environment["LEVEL"] == "high"
    given(b"services:\n  web: {imagine: web}")
    with pytest.raises(ComposeRefused, match=r"standard input:2: services\.web\.imagine"):
        project.load([Path("-")], {})
    given(text)
    with pytest.raises(ComposeRefused, match="given twice"):
        project.load([Path("-"), Path("-")], {})
