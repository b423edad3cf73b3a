"""What is refused: each with words that name the cause, and the cluster stays as it was."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from lab import images, oci_archive
from tests.system.cluster import Cluster

SITE = """
name: {name}
services:
  web:
    image: {image}
    command: ["httpd", "-f", "-p", "8000", "-h", "/www"]
    stop_grace_period: 1s
"""


def written(cluster: Cluster, text: str) -> str:
    path = cluster.folder / "bad.yaml"
    path.write_text(text)
    return str(path)


# ---- files ---------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_by_name_file_and_line(cluster: Cluster) -> None:
    path = written(cluster, "name: bad\nservices:\n  web:\n    image: static-web:1\n    imag: typo\n")
    with cluster.unchanged():
        words = cluster.refused("deploy", path)
    assert "imag" in words
    assert f"{path}:5" in words


def test_a_key_that_fairway_lacks_is_refused_with_what_to_do(cluster: Cluster) -> None:
    path = written(cluster, "name: bad\nservices:\n  web:\n    image: static-web:1\n    privileged: true\n")
    with cluster.unchanged():
        words = cluster.refused("deploy", path)
    assert f"{path}:5" in words
    assert "cap_add" in words


def damaged(content: bytes, mark: bytes) -> bytes:
    """The archive with one byte of the member that holds `mark` changed."""
    position = content.index(mark)
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def archives() -> dict[str, tuple[bytes, str]]:
    """Name -> content of an archive that is none, and a word that must be in the refusal."""
    good = images.build("static-web").read_bytes()
    settings = oci_archive.ImageSettings("other:1", ("true",), architecture="s390x")
    foreign = oci_archive.archive(settings, oci_archive.RootFilesystem())
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a-file"))
    return {
        "truncated": (good[: len(good) // 2], "truncated"),
        "digest": (damaged(good, b"hello from fairway"), "digest"),
        "architecture": (foreign, "s390x"),
        "tar-of-something": (other.getvalue(), "image"),
        "text": (b"no archive at all\n" * 100, "not an image archive"),
        "empty": (b"", "empty"),
    }


@pytest.mark.parametrize("which", ["truncated", "digest", "architecture", "tar-of-something", "text", "empty"])
def test_a_bad_image_archive_is_refused(cluster: Cluster, which: str) -> None:
    content, word = archives()[which]
    path = cluster.folder / f"{which}.tar"
    path.write_bytes(content)
    with cluster.unchanged():
        words = cluster.refused("image", "load", str(path))
    assert word in words
    for host in cluster.lab.hosts():
        left = cluster.lab.run_in(host, ["find", "/var/lib/fairway/incoming", "-type", "f"], check=False)
        assert left.stdout == "", f"{host} keeps the archive"


def test_an_archive_that_does_not_exist_is_named(cluster: Cluster) -> None:
    assert "/nowhere.tar" in cluster.refused("image", "load", "/nowhere.tar")


# ---- joining -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def newcomer(cluster: Cluster) -> Iterator[str]:
    """A host of the lab that is in no cluster, and stays out of it; switched off at the end."""
    name = cluster.lab.add_host()
    cluster.wait(lambda: phase(cluster, name) == "new", f"the daemon of {name} answers")
    yield name
    cluster.lab.remove_host(name)


def phase(cluster: Cluster, host: str) -> str:
    return str(cluster.json("status", host=host)["host"]["phase"])


def token(cluster: Cluster, *options: str) -> str:
    return cluster.fairway("token", "create", "--role", "worker", "-q", *options).stdout.strip()


def join(cluster: Cluster, host: str, with_token: str, name: str = "newcomer") -> str:
    """What a join that is refused says; the host must stay without a cluster."""
    arguments = ("join", cluster.lab.address("host-1"), "--token", with_token, "--name", name)
    words = cluster.refused(*arguments, "--address", cluster.lab.address(host), host=host)
    assert phase(cluster, host) == "new"
    return words


def test_a_node_name_that_is_taken_is_refused(cluster: Cluster, newcomer: str) -> None:
    good = token(cluster)
    with cluster.unchanged():
        words = join(cluster, newcomer, good, name="host-2")
    assert "host-2" in words
    assert "already" in words


def test_an_expired_token_is_refused(cluster: Cluster, newcomer: str) -> None:
    short = token(cluster, "--valid", "1s", "--name", "short")
    cluster.wait(lambda: "expired" in cluster.fairway("token", "ls").stdout, "the token has expired")
    with cluster.unchanged():
        assert "expired" in join(cluster, newcomer, short)


def test_a_revoked_token_is_refused(cluster: Cluster, newcomer: str) -> None:
    made = cluster.json("token", "create", "--role", "worker", "--name", "revoked")
    cluster.fairway("token", "revoke", made["token"]["meta"]["id"])
    with cluster.unchanged():
        assert "revoked" in join(cluster, newcomer, made["text"])


def test_a_token_of_another_cluster_is_refused(cluster: Cluster, lonely: Cluster, newcomer: str) -> None:
    foreign = token(lonely)
    with cluster.unchanged():
        words = join(cluster, newcomer, foreign)
    assert "another cluster" in words or "fingerprint" in words


@pytest.mark.parametrize("text", ["nonsense", "fw1.", ""])
def test_what_is_no_token_is_refused(cluster: Cluster, newcomer: str, text: str) -> None:
    assert "token" in join(cluster, newcomer, text)


def test_a_host_of_a_cluster_cannot_join_again(cluster: Cluster) -> None:
    with cluster.unchanged():
        words = cluster.refused("join", cluster.lab.address("host-1"), "--token", token_text(), host="host-2")
    assert "belongs to" in words


def token_text() -> str:
    """Looks like a token and is none."""
    return "nonsense"


def test_a_certificate_of_another_cluster_opens_nothing(cluster: Cluster, lonely: Cluster) -> None:
    formed, theirs = cluster.formed, lonely.formed
    if formed is None or theirs is None:
        pytest.skip("the lab was up already: its operator's key is not known")
    own = (formed.operator_certificate_pem, formed.operator_private_key_pem)
    foreign = (theirs.operator_certificate_pem, theirs.operator_private_key_pem)
    assert cluster.from_client(*own, formed.ca_certificate_pem, "node", "ls").returncode == 0
    refused = cluster.from_client(*foreign, formed.ca_certificate_pem, "node", "ls")  # the server's choice
    assert refused.returncode != 0
    assert "host-1" not in refused.stdout
    assert "certificate" in refused.stderr
    unknown = cluster.from_client(*own, theirs.ca_certificate_pem, "node", "ls")  # the client's choice
    assert unknown.returncode != 0
    assert "certificate" in unknown.stderr


# ---- apps ----------------------------------------------------------------------------------------


def test_a_published_port_that_is_taken_is_refused(cluster: Cluster) -> None:
    app = SITE.format(name="{name}", image="static-web:1") + "    ports: ['8099:8000']\n"
    cluster.deploy(app.format(name="first"))
    try:
        path = written(cluster, app.format(name="second"))
        with cluster.unchanged():
            words = cluster.refused("deploy", path)
        assert "8099" in words
        assert "first" in words
    finally:
        cluster.remove("first")


def stays_pending(cluster: Cluster, name: str, text: str, *words: str) -> None:
    """The only task of an app that cannot run says why with these words, wherever that is asked; the app is removed."""
    path = written(cluster, text)

    def said() -> bool:
        (task,) = cluster.tasks(f"{name}/web")
        message = task["status"]["message"]
        shown = cluster.fairway("ps", name).stdout
        told = (
            task["status"]["state"] == "pending"
            and message in cluster.pending_reasons(f"{name}/web")
            and message in shown
        )
        return told and all(word in message for word in words)

    try:
        refused = cluster.fairway("deploy", path, "--detach", ok=False)
        assert refused.returncode == 0, refused.stderr
        cluster.wait(lambda: bool(cluster.tasks(f"{name}/web")), "it has a task")
        cluster.wait(said, f"the reason is given with {words}")
    finally:
        cluster.remove(name)


def test_more_memory_than_any_host_has_is_said_with_amounts(cluster: Cluster) -> None:
    text = SITE.format(name="greedy", image="static-web:1")
    with cluster.unchanged():
        text += "    deploy: {resources: {reservations: {memory: 100g}}}\n"
        stays_pending(cluster, "greedy", text, "memory", "100 GiB", "4 GiB")


def test_an_image_that_no_host_has_is_said(cluster: Cluster) -> None:
    text = SITE.format(name="unknown", image="no-such-image:9")
    stays_pending(cluster, "unknown", text, "no-such-image:9", "image load")


def test_a_constraint_that_no_host_meets_is_said(cluster: Cluster) -> None:
    text = SITE.format(name="picky", image="static-web:1")
    text += "    deploy: {placement: {constraints: [node.labels.disk == ssd]}}\n"
    stays_pending(cluster, "picky", text, "disk")


def test_a_bind_mount_that_no_host_allows_does_not_run(cluster: Cluster) -> None:
    text = SITE.format(name="binder", image="static-web:1") + "    volumes: ['/etc:/host-etc:ro']\n"
    path = written(cluster, text)
    try:
        cluster.fairway("deploy", path, "--detach", ok=False)

        def said() -> bool:
            shown = cluster.fairway("ps", "binder", "-a").stdout
            return "/etc" in shown and "allowed_bind_mounts" in shown

        cluster.wait(said, "the reason is shown")
        assert not any(task["status"]["ready"] for task in cluster.tasks("binder/web"))
    finally:
        cluster.remove("binder")
