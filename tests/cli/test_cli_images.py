"""Pulls and registries: what is asked, shown, and done where an image does not come."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from cli.failure import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from proto import control_pb2, objects_pb2
from tests.cli.control_server import ControlServer, stream_of

Run = Callable[..., Any]
DIGEST = "sha256:" + "a" * 64
REDIS = "docker.io/library/redis:7"


def layer(letter: str, done: int, here: bool = False) -> control_pb2.LayerProgress:
    return control_pb2.LayerProgress(digest="sha256:" + letter * 64, done_bytes=done, size_bytes=4096, here=here)


def done(present: bool = False) -> control_pb2.PullImageReply:
    layers = [] if present else [layer("b", 4096, True), layer("c", 4096, True)]
    return control_pb2.PullImageReply(layers=layers, image_id="i1", manifest_digest=DIGEST, present=present, name=REDIS)


def test_pull_tells_each_layer_once_in_a_pipe(server: ControlServer, fairway: Run) -> None:
    server.on(
        "PullImage",
        stream_of(
            control_pb2.PullImageReply(layers=[layer("b", 100), layer("c", 0)]),
            control_pb2.PullImageReply(layers=[layer("b", 200), layer("c", 100)]),
            control_pb2.PullImageReply(layers=[layer("b", 4096, True), layer("c", 200)]),
            done(),
        ),
    )
    ended = fairway("image", "pull", "redis:7")
    assert ended.code == EXIT_OK
    assert ended.out.splitlines() == [
        "bbbbbbbbbbbb: pulling 4K",
        "cccccccccccc: pulling 4K",
        "bbbbbbbbbbbb: 4K",
        "cccccccccccc: 4K",
        f"Pulled {REDIS} (8K, {DIGEST})",
    ]
    assert server.asked("PullImage") == [control_pb2.PullImageRequest(image="redis:7", refresh=True)]


def test_pull_of_what_is_there_and_of_what_is_not(server: ControlServer, fairway: Run) -> None:
    server.on("PullImage", stream_of(done(present=True)))
    assert fairway("image", "pull", "redis:7").out == f"{REDIS} is up to date ({DIGEST})\n"
    server.refuse("PullImage", grpc.StatusCode.NOT_FOUND, "registry docker.io has no library/redis:8")
    ended = fairway("image", "pull", "redis:8")
    assert ended.code == EXIT_FAILED
    assert ended.err == "fairway: pull redis:8: registry docker.io has no library/redis:8\n"


def compose(tmp_path: Path, policy: str = "") -> str:
    path = tmp_path / "compose.yaml"
    said = f"pull_policy: {policy}" if policy else ""
    path.write_text(f"name: shop\nservices:\n  cache:\n    image: redis:7\n    {said}\n")
    return str(path)


@pytest.mark.parametrize(
    ("policy", "options", "asked"),
    [
        ("", [], [False]),
        ("missing", [], [False]),
        ("always", [], [True]),
        ("never", [], []),
        ("never", ["--pull", "always"], [True]),
        ("", ["--detach"], []),
        ("always", ["--detach"], [True]),
    ],
)
def test_a_deploy_asks_for_images_as_its_services_say(
    server: ControlServer, fairway: Run, tmp_path: Path, policy: str, options: list[str], asked: list[bool]
) -> None:
    server.on("PullImage", stream_of(done(present=True)))
    server.on("DeployApp", control_pb2.DeployAppReply(revision=3))
    server.on("WatchTasks", stream_of(control_pb2.ListTasksReply(revision=3)))
    fairway("deploy", compose(tmp_path, policy), *options, "--timeout", "1s")
    assert [request.refresh for request in server.asked("PullImage")] == asked
    assert len(server.asked("DeployApp")) == 1


def test_an_image_that_does_not_come_is_a_warning_unless_it_was_to_be_asked_for(
    server: ControlServer, fairway: Run, tmp_path: Path
) -> None:
    server.refuse("PullImage", grpc.StatusCode.FAILED_PRECONDITION, "registry docker.io does not answer")
    server.on("DeployApp", control_pb2.DeployAppReply(revision=3))
    server.on("WatchTasks", stream_of(control_pb2.ListTasksReply(revision=3)))
    ended = fairway("deploy", compose(tmp_path), "--timeout", "1s")
    assert "pull redis:7: registry docker.io does not answer" in ended.err
    assert len(server.asked("DeployApp")) == 1
    ended = fairway("deploy", compose(tmp_path), "--pull", "always")
    assert ended.code == EXIT_FAILED
    assert len(server.asked("DeployApp")) == 1, "it was deployed without the image it asked for"


def test_a_cluster_of_an_earlier_version_is_deployed_to_without_a_word(
    server: ControlServer, fairway: Run, tmp_path: Path
) -> None:
    server.on("DeployApp", control_pb2.DeployAppReply(revision=3))
    server.on("WatchTasks", stream_of(control_pb2.ListTasksReply(revision=3)))
    ended = fairway("deploy", compose(tmp_path), "--timeout", "1s")
    assert len(server.asked("PullImage")) == 1
    assert "redis:7" not in ended.err


def test_a_password_comes_from_standard_input_and_is_not_printed(
    server: ControlServer, fairway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = objects_pb2.Registry(user="ana")
    server.on("UpdateRegistry", control_pb2.UpdateRegistryReply(registry=registry))
    stdin = SimpleNamespace(buffer=io.BytesIO(b"s3cret\n"), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stdin)
    ended = fairway("registry", "login", "example.com", "--user", "ana", "--password-stdin")
    assert (ended.code, ended.out) == (EXIT_OK, "ana is logged in to example.com\n")
    (request,) = server.asked("UpdateRegistry")
    assert (request.login.user, request.login.password) == ("ana", b"s3cret")
    assert fairway("registry", "login", "example.com", "--user", "ana").code == EXIT_USAGE


def test_what_is_not_named_stays_as_it_is(server: ControlServer, fairway: Run, tmp_path: Path) -> None:
    server.on("UpdateRegistry", control_pb2.UpdateRegistryReply())
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    for options in (
        ["--insecure"],
        ["--ca", str(authority)],
        ["--no-ca"],
        ["--mirror", "a.example", "--mirror", "b.example/hub"],
        ["--no-mirrors"],
    ):
        assert fairway("registry", "set", "r.example", *options).code == EXIT_OK
    insecure, ca, no_ca, mirrors, no_mirrors = server.asked("UpdateRegistry")
    assert insecure.insecure and not insecure.HasField("ca_pem") and not insecure.HasField("mirrors")
    assert ca.ca_pem.startswith("-----BEGIN") and not ca.HasField("insecure")
    assert no_ca.HasField("ca_pem") and no_ca.ca_pem == ""
    assert list(mirrors.mirrors.mirrors) == ["a.example", "b.example/hub"]
    assert no_mirrors.HasField("mirrors") and not no_mirrors.mirrors.mirrors
    assert fairway("registry", "set", "r.example", "--insecure", "--secure").code == EXIT_USAGE


def test_inspect_shows_what_an_image_says_of_itself(server: ControlServer, fairway: Run) -> None:
    image = objects_pb2.Image(manifest_digest=DIGEST, operating_system="linux", architecture="amd64", size_bytes=4096)
    image.meta.name = REDIS
    config = {"config": {"Cmd": ["redis-server"], "Env": ["A=1"], "ExposedPorts": {"6379/tcp": {}}}}
    manifest = {"layers": [{"digest": DIGEST, "size": 4000, "mediaType": "tar"}]}
    server.on(
        "InspectImage",
        control_pb2.InspectImageReply(
            image=image,
            services=["shop/cache"],
            manifest=json.dumps(manifest).encode(),
            config=json.dumps(config).encode(),
        ),
    )
    shown = fairway("image", "inspect", "redis:7").out
    for words in (REDIS, "linux/amd64", "shop/cache", '["redis-server"]', "6379/tcp", "A=1", DIGEST):
        assert words in shown
    found = json.loads(fairway("image", "inspect", "redis:7", "-o", "json").out)
    assert found["manifest"] == manifest and found["config"] == config
