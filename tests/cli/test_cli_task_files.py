"""`configs` and `secrets` of Compose files, and the commands about them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import control_pb2, objects_pb2

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
