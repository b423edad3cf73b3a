"""`configs` and `secrets` of Compose files, and the commands about them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.commands.deploy import FILES_LEVEL
from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import control_pb2, objects_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer

Fairway = Callable[..., Ended]
SECRET, CONFIG = objects_pb2.FILE_KIND_SECRET, objects_pb2.FILE_KIND_CONFIG


def load(folder: Path, text: str, **environment: str) -> control_pb2.AppSpec:
    (folder / "compose.yaml").write_text(textwrap.dedent(text))
    return project.load([folder / "compose.yaml"], environment, project.Choices("shop")).spec


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ComposeRefused) as refused:
        load(folder, text)
    return str(refused.value)


def test_files_variables_and_texts_become_files_of_the_app(tmp_path: Path) -> None:
    (tmp_path / "pw.txt").write_bytes(b"hunter2\n\x00")
    app = load(
        tmp_path,
        """
        services:
          web:
            image: web
            secrets: [pw, {source: token, target: tokens/main, uid: "103", gid: "104", mode: 0440}]
            configs: [text, {source: site, target: /etc/site.conf}]
        secrets:
          pw: {file: ./pw.txt, labels: {for: web}}
          token: {environment: TOKEN, name: the-token}
          unused: {file: ./is-not-there}
        configs:
          text: {content: "of ${WHO}"}
          site: {external: true, name: site-2}
        """,
        TOKEN="123",
        WHO="me",
    )
    mounts = [(one.kind, one.name, one.target) for one in app.services["web"].container.files]
    assert sorted(mounts) == [
        (SECRET, "shop_pw", "/run/secrets/pw"),
        (SECRET, "the-token", "/run/secrets/tokens/main"),
        (CONFIG, "shop_text", "/text"),
        (CONFIG, "site-2", "/etc/site.conf"),
    ]
    (token,) = (one for one in app.services["web"].container.files if one.name == "the-token")
    assert (token.uid, token.gid, token.mode) == (103, 104, 0o440)
    files = {(one.kind, one.name): one for one in app.files}
    assert {key: one.content for key, one in files.items()} == {
        (SECRET, "shop_pw"): b"hunter2\n\x00",
        (SECRET, "the-token"): b"123",
        (CONFIG, "shop_text"): b"of me",
    }
    assert dict(files[SECRET, "shop_pw"].labels) == {"for": "web"}


@pytest.mark.parametrize(
    ("service", "top", "words"),
    [
        ("secrets: [pw]", "", "names the secret 'pw', which the file does not define under secrets"),
        ("configs: [pw]", "secrets: {pw: {environment: HOME}}", "does not define under configs"),
        ("secrets: [pw]", "secrets: {pw: {file: ./is-not-there}}", "is-not-there cannot be read"),
        ("secrets: [pw]", "secrets: {pw: {environment: NOT_SET}}", "names the variable NOT_SET, which is not set"),
        ("secrets: [pw]", "secrets: {pw: {content: x}}", "secrets.pw.content is not supported"),
        ("secrets: [pw]", "secrets: {pw: {driver: vault}}", "secrets.pw.driver is not supported"),
        ("secrets: [pw]", "secrets: {pw: {file: x, external: true}}", "belongs to what the file defines itself"),
        ("configs: [c]", "configs: {c: {}}", "needs one of file, environment, content, or external: true"),
        ("configs: [c]", "configs: {c: {file: x, content: y}}", "needs one of"),
        ("configs: [c]", "configs: {c: {content: ''}}", "is empty"),
        ("configs: [c]", "configs: {c: {external: true, name: a/b}}", "is not the name of a config"),
        ("configs: [{target: /x}]", "", "needs source"),
        ("configs: [{source: c, uid: web}]", "configs: {c: {content: x}}", "'web' is not a whole number"),
        ("configs: [{source: c, mode: 9}]", "configs: {c: {content: x}}", "'9' is not a whole number"),
        (
            "configs: [c, {source: d, target: /c}]",
            "configs: {c: {content: x}, d: {content: y}}",
            "a second thing at /c",
        ),
        ("volumes: [data:/c]\n            configs: [c]", "volumes: {data: {}}", "a second thing at /c"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, service: str, top: str, words: str) -> None:
    text = f"""
        services:
          web:
            image: web
            {service}
        {top}
    """
    said = refusal(tmp_path, text)
    assert words in said
    assert "compose.yaml:" in said


def test_a_file_that_is_too_large_is_refused_and_nothing_of_it_said(tmp_path: Path) -> None:
    (tmp_path / "pw.txt").write_text("hunter2" * 100_000)
    said = refusal(tmp_path, "services: {web: {image: web, secrets: [pw]}}\nsecrets: {pw: {file: pw.txt}}\n")
    assert "is larger than 512000 bytes" in said
    assert "hunter2" not in said


def cluster_at(level: int) -> control_pb2.GetClusterReply:
    return control_pb2.GetClusterReply(cluster=objects_pb2.Cluster(feature_level=level))


def test_a_leader_that_knows_no_secrets_is_not_asked_to_deploy_them(
    server: ControlServer, fairway: Fairway, tmp_path: Path
) -> None:
    (tmp_path / "pw.txt").write_text("hunter2")
    path = tmp_path / "compose.yaml"
    path.write_text("services: {web: {image: web, secrets: [pw]}}\nsecrets: {pw: {file: pw.txt}}\n")
    server.on("GetCluster", cluster_at(0))
    for verb, method in (("deploy", "DeployApp"), ("plan", "PlanApp")):
        ended = fairway(verb, str(path))
        assert ended.code
        assert "need feature level 2, the cluster is at 1" in ended.err
        assert not server.asked(method)
    server.on("GetCluster", cluster_at(FILES_LEVEL))
    server.on("PlanApp", control_pb2.PlanAppReply())
    assert fairway("plan", str(path)).code == 0
    (request,) = server.asked("PlanApp")
    assert [file.content for file in request.app.files] == [b"hunter2"]


def test_a_secret_is_made_and_rotated_from_a_file(server: ControlServer, fairway: Fairway, tmp_path: Path) -> None:
    (tmp_path / "pw.txt").write_text("hunter2")
    file = objects_pb2.TaskFile(meta=objects_pb2.Meta(name="pw"), kind=SECRET, version=2, size_bytes=7)
    server.on("CreateFile", control_pb2.CreateFileReply(file=file, services=["shop/web"]))
    made = fairway("secret", "create", "pw", str(tmp_path / "pw.txt"), "--label", "for=web")
    rotated = fairway("secret", "rotate", "pw", str(tmp_path / "pw.txt"), "--keep-services")
    first, second = server.asked("CreateFile")
    assert (first.kind, first.name, first.content, dict(first.labels)) == (SECRET, "pw", b"hunter2", {"for": "web"})
    assert (first.new_version, second.new_version, second.keep_services) == (False, True, True)
    assert "shop/web" in rotated.out
    assert "hunter2" not in made.out + made.err + rotated.out + rotated.err


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"", "is empty"), (b"x" * 512_001, "larger")])
def test_a_file_that_cannot_be_a_secret_is_not_sent(
    server: ControlServer, fairway: Fairway, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "pw.txt"
    if content is not None:
        path.write_bytes(content)
    ended = fairway("config", "create", "pw", str(path))
    assert ended.code
    assert words in ended.err
    assert not server.asked("CreateFile")


def test_listings_say_who_uses_what(server: ControlServer, fairway: Fairway) -> None:
    file = objects_pb2.TaskFile(meta=objects_pb2.Meta(name="site", tenant="default"), kind=CONFIG, version=3)
    file.content = b"a text"
    server.on("ListFiles", control_pb2.ListFilesReply(files=[control_pb2.FileView(file=file, services=["shop/web"])]))
    server.on("RemoveFile", control_pb2.RemoveFileReply(file=file))
    assert fairway("config", "ls", "-q").out == "site\n"
    assert "shop/web" in fairway("config", "ls").out
    assert "a text" in fairway("config", "inspect", "site").out
    assert fairway("config", "rm", "site").out == "site removed\n"
    assert [request.kind for request in server.asked("ListFiles")] == [CONFIG] * 3
