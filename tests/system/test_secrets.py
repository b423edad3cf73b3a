"""Secrets and configs: what a task finds, and that nothing else finds what is secret."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proto.backup_file import read_stream
from tests.system.cluster import Cluster, run_in_task

FOLDERS = ("/var/lib/fairway", "/var/log", "/etc/fairway", "/run/fairway", "/run/containerd", "/var/lib/containerd")
KEPT_IN_MEMORY = "/run/fairway/secrets/"
APP = """
name: {app}
services:
  box:
    image: static-web:1
    command: ["sleep", "100000"]
    init: true
    user: "999:999"
    stop_grace_period: 1s
    secrets:
      - {{source: key, target: the-key, uid: "999", gid: "998", mode: 0400}}
      - own
    configs:
      - {{source: words, target: /etc/words.conf, mode: 0444}}
      - site
    deploy: {{mode: global}}
configs:
  words: {{content: "{words}"}}
  site: {{external: true, name: "{name}"}}
secrets:
  key: {{external: true, name: "{name}"}}
  own: {{file: ./own.txt}}
"""

LOOK = """
for file in /run/secrets/the-key /run/secrets/own /etc/words.conf /site; do
    stat -c "%a %u %g" $file; cat $file; echo
done | grep .
grep " /run/secrets/the-key " /proc/mounts
(echo other > /run/secrets/the-key) 2> /dev/null || echo not written
"""


@dataclass
class Kept:
    """An app with secrets on every host, and what is in them."""

    cluster: Cluster
    app: str
    name: str
    secrets: list[str]

    def wanted(self) -> list[dict[str, Any]]:
        return self.cluster.tasks(f"{self.app}/box")

    def read(self, host: str, task: dict[str, Any]) -> str:
        """What a task on this host finds in its secret."""
        path = f"/proc/{task['status']['pid']}/root/run/secrets/the-key"
        return self.cluster.lab.run_in(host, ["cat", path], check=False).stdout

    def all_read(self, content: str) -> bool:
        """Whether every host's task is ready and finds this in its secret."""
        if not self.cluster.ready(f"{self.app}/box", len(self.cluster.lab.hosts()), "host-1"):
            return False
        names = self.cluster.node_names()
        return {self.read(names[task["node_id"]], task) for task in self.wanted()} == {content}

    def found(self) -> list[str]:
        """Files of hosts that hold a secret, whatever they are."""
        arguments = [part for secret in self.secrets for pattern in _forms(secret) for part in ("-e", pattern)]
        places: list[str] = []
        for host in self.cluster.lab.hosts():
            command = ["grep", "-rlasF", "--devices=skip", *arguments, *FOLDERS]
            places += [f"{host}:{line}" for line in self.cluster.lab.run_in(host, command, check=False).stdout.split()]
        return places


def _forms(secret: str) -> tuple[str, ...]:
    """As it is, in hexadecimal, and in base64 wherever that begins in its input."""
    encoded = [base64.b64encode(b" " * shift + secret.encode()).decode()[4:-4] for shift in range(3)]
    return (secret, secret.encode().hex(), *encoded)


@pytest.fixture(scope="module")
def kept(cluster: Cluster) -> Iterator[Kept]:
    app, name = f"app-{uuid.uuid4().hex[:6]}", f"key-{uuid.uuid4().hex[:6]}"
    made = Kept(cluster, app, name, [f"first-{uuid.uuid4().hex}", f"own-{uuid.uuid4().hex}"])
    cluster.fairway("secret", "create", name, "-", text_in=made.secrets[0])
    cluster.fairway("config", "create", name, "-", text_in="of the site\n")
    (cluster.folder / "own.txt").write_text(made.secrets[1])
    cluster.deploy(APP.format(app=app, name=name, words="some words"))
    yield made
    cluster.remove(app)
    cluster.wait(lambda: cluster.fairway("secret", "rm", name, ok=False).returncode == 0, "the secret is gone")
    cluster.wait(lambda: cluster.fairway("config", "rm", name, ok=False).returncode == 0, "the config is gone")
    (cluster.folder / "own.txt").unlink()


def test_a_task_finds_its_files_as_the_compose_file_says(kept: Kept) -> None:
    seen = run_in_task(kept.cluster, f"{kept.app}/box", "sh", "-c", LOOK).splitlines()
    expected = [
        ("400 999 998", kept.secrets[0]),
        ("444 0 0", kept.secrets[1]),
        ("444 0 0", "some words"),
        ("444 0 0", "of the site"),
    ]
    assert seen[:8] == [part for each in expected for part in each]
    _, _, kind, options, *_ = seen[8].split()
    assert kind == "ramfs"
    assert "ro" in options.split(",")
    assert seen[9:] == ["not written"]


def test_files_outlive_the_daemon_and_come_back_after_a_power_cut(kept: Kept) -> None:
    cluster = kept.cluster
    names = cluster.node_names()
    (task,) = (task for task in kept.wanted() if names[task["node_id"]] == "host-2")
    cluster.lab.restart_daemon("host-2")
    assert kept.read("host-2", task) == kept.secrets[0]
    cluster.wait(lambda: kept.all_read(kept.secrets[0]), "every task has its secret after the restart")
    cluster.lab.kill("host-3")
    cluster.lab.start("host-3")
    cluster.wait(lambda: kept.all_read(kept.secrets[0]), "every task has its secret after the power cut")


def test_a_rotated_secret_and_a_changed_file_make_new_tasks(kept: Kept) -> None:
    cluster = kept.cluster
    kept.secrets.append(f"second-{uuid.uuid4().hex}")
    rotated = cluster.fairway("secret", "rotate", kept.name, "-", text_in=kept.secrets[-1])
    assert f"{kept.app}/box" in rotated.stdout
    cluster.wait(lambda: kept.all_read(kept.secrets[-1]), "every task has the new version")

    def users() -> list[tuple[int, list[str]]]:
        versions = cluster.json("secret", "inspect", kept.name)
        return [(view["file"]["version"], view["services"]) for view in versions]

    cluster.wait(lambda: users() == [(2, [f"{kept.app}/box"]), (1, [])], "nothing uses the version before")
    path = cluster.folder / "plan.yaml"
    path.write_text(APP.format(app=kept.app, name=kept.name, words="other words"))
    assert f"config {kept.app}_words: version 1 -> 2" in cluster.fairway("plan", str(path)).stdout


def test_nothing_but_the_memory_of_its_hosts_has_a_secret(kept: Kept) -> None:
    cluster = kept.cluster
    found = kept.found()
    memory = [place for place in found if f":{KEPT_IN_MEMORY}" in place]
    assert {place.partition(":")[0] for place in memory} == set(cluster.lab.hosts())
    assert found == memory
    assert not _told(kept, _in_backup(cluster))
    for command in (
        ["secret", "inspect", kept.name],
        ["secret", "inspect", f"{kept.app}_own"],
        ["secret", "ls"],
        ["show", f"{kept.app}/box"],
        ["ps", kept.app, "-a"],
    ):
        assert not _told(kept, json.dumps(cluster.json(*command)))
    for command in (["secret", "inspect", kept.name], ["events", "-o", "json"]):
        done = cluster.fairway(*command)
        assert not _told(kept, done.stdout + done.stderr)
    refused = cluster.refused("secret", "rm", kept.name)
    assert f"in use by {kept.app}/box" in refused
    assert "Compose file of app" in cluster.refused("secret", "rm", f"{kept.app}_own")
    assert "already" in cluster.refused("secret", "create", kept.name, str(Path(__file__)))


def _told(kept: Kept, text: str) -> list[str]:
    return [form for secret in kept.secrets for form in _forms(secret) if form in text]


def _in_backup(cluster: Cluster) -> str:
    """All that a backup of the cluster holds."""
    file, passphrase = (cluster.folder / f"{uuid.uuid4().hex}.{end}" for end in ("backup", "passphrase"))
    passphrase.write_text("passphrase of the test\n")
    cluster.fairway("backup", "create", str(file), "--passphrase-file", str(passphrase))
    with file.open("rb") as opened:
        found = b"".join(record.SerializeToString() for record in read_stream(opened)).decode(errors="replace")
    assert "TaskFile" in found or "task_files" in found
    return found
