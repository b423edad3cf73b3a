"""`raft status`, `backup`, `restore` and `recover` against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto import control_pb2, objects_pb2, passphrase
from proto.backup_pb2 import BackupHeader
from raft.backup import backup_of
from raft.store import Store
from raft.transaction import TransactionBuilder
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer, stream_of

Fairway = Callable[..., Ended]
SECRET = b"k" * 32


def member(name: str, role: str, **fields: Any) -> control_pb2.RaftMemberView:
    return control_pb2.RaftMemberView(node_id=f"id-{name}", name=name, role=role, if_lost="cluster goes on", **fields)


def backup_bytes(request: control_pb2.CreateBackupRequest) -> bytes:
    store = Store()
    tenant = objects_pb2.Tenant(meta=objects_pb2.Meta(id="t", name="default"))
    store.apply(TransactionBuilder().create(tenant).build("r", "test", 1), 5)
    header = BackupHeader(cluster_id="c1", cluster_name="prod", fairway_version="0.1.0")
    header.seal.CopyFrom(passphrase.sealed(request.seal, request.sealing_key, SECRET, "c1"))
    return b"".join(backup_of(store, header))


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    return str(path)


@pytest.fixture
def made(server: ControlServer, fairway: Fairway, tmp_path: Path, secret: str) -> Path:
    """A backup that the command made."""

    def answer(request: control_pb2.CreateBackupRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        content = backup_bytes(request)
        for position in range(0, len(content), 50):
            yield control_pb2.BackupChunk(data=content[position : position + 50])

    server.on("CreateBackup", answer)
    path = tmp_path / "prod.backup"
    ended = fairway("backup", "create", str(path), "--passphrase-file", secret)
    assert ended.code == 0, ended.err
    assert "Revision: 5" in ended.out
    return path


def test_status_is_a_table_and_its_exit_status_tells_of_a_lost_majority(
    server: ControlServer, fairway: Fairway
) -> None:
    reply = control_pb2.RaftStatusReply(leader_id="id-a", term=4, quorum=True, summary="works", asked_id="id-a")
    reply.members.append(member("a", "leader", voter=True, term=4, zone="x"))
    reply.members.append(member("b", "unknown", voter=True, last_heard_ms=70_000, lag_entries=9, problem="silent"))
    server.on("RaftStatus", reply)
    ended = fairway("raft", "status")
    assert ended.code == 0
    assert "ZONE" in ended.out
    assert "1m ago" in ended.out
    assert "warning: b: silent" in ended.err
    reply.quorum = False
    assert fairway("raft", "status").code == 3
    shown = fairway("raft", "status", "-o", "json")
    assert json.loads(shown.out)["members"][1]["lag_entries"] == 9


def test_who_leads_is_said_when_it_has_changed(server: ControlServer, fairway: Fairway) -> None:
    reply = control_pb2.TransferLeadershipReply(leader_name="b", former_name="a")
    server.on("TransferLeadership", reply)
    assert fairway("raft", "transfer", "b").out == "b leads now, instead of a.\n"
    assert server.asked("TransferLeadership")[0].node == "b"
    assert json.loads(fairway("raft", "transfer", "-o", "json").out)["leader_name"] == "b"
    reply.leader_name = "a"
    assert fairway("raft", "transfer", "a").out == "a leads already.\n"


def test_the_passphrase_never_leaves_the_command(server: ControlServer, made: Path) -> None:
    (request,) = server.asked("CreateBackup")
    assert b"correct horse" not in request.SerializeToString()
    assert len(request.sealing_key) == passphrase.KEY_BYTES
    content = made.read_bytes()
    assert b"correct horse" not in content
    assert SECRET not in content
    assert made.stat().st_mode & 0o777 == 0o600


def test_verify_needs_no_cluster(server: ControlServer, fairway: Fairway, made: Path, secret: str) -> None:
    server.stop()
    ended = fairway("backup", "verify", str(made), "--passphrase-file", secret, "-o", "json")
    assert json.loads(ended.out)["objects"] == {"tenants": 1}
    made.write_bytes(made.read_bytes()[:-5])
    ended = fairway("backup", "verify", str(made))
    assert ended.code == 1
    assert "cut off" in ended.err
    assert fairway("backup", "verify", str(made) + "-no").code == 1


def test_a_stream_that_breaks_leaves_no_file(
    server: ControlServer, fairway: Fairway, tmp_path: Path, secret: str
) -> None:
    server.on("CreateBackup", stream_of(control_pb2.BackupChunk(data=b"fairway backup\n")))
    path = tmp_path / "broken.backup"
    ended = fairway("backup", "create", str(path), "--passphrase-file", secret)
    assert ended.code == 1
    assert "cannot be used" in ended.err
    assert not [left for left in tmp_path.iterdir() if "broken" in left.name]


def test_a_file_that_exists_and_a_short_passphrase_are_refused(fairway: Fairway, made: Path, tmp_path: Path) -> None:
    before = made.read_bytes()
    ended = fairway("backup", "create", str(made), "--passphrase-file", str(tmp_path / "passphrase"))
    assert (ended.code, "exists already" in ended.err) == (1, True)
    assert made.read_bytes() == before
    short = tmp_path / "short"
    short.write_text("short\n")
    ended = fairway("backup", "create", str(tmp_path / "other"), "--passphrase-file", str(short))
    assert (ended.code, "5 bytes" in ended.err) == (1, True)


def plan() -> control_pb2.DisasterPlan:
    return control_pb2.DisasterPlan(last_index=17, kept=["this"], lost=["that"], next=["go on"])


def test_restore_sends_the_file_and_shows_the_plan(
    server: ControlServer, fairway: Fairway, made: Path, secret: str
) -> None:
    received: list[control_pb2.RestoreRequest] = []

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> control_pb2.RestoreReply:
        received.extend(requests)
        return control_pb2.RestoreReply(plan=plan(), cluster_name="prod")

    server.on("Restore", answer)
    ended = fairway("restore", str(made), "--passphrase-file", secret, "--plan", "--label", "zone=x")
    assert ended.code == 0
    assert "would keep:\n  - this" in ended.out
    first, *rest = received
    assert (first.plan_only, dict(first.labels)) == (True, {"zone": "x"})
    assert b"".join(one.data for one in rest) == made.read_bytes()
    assert first.sealing_key == server.asked("CreateBackup")[0].sealing_key


def test_recover_asks_before_it_acts(server: ControlServer, fairway: Fairway) -> None:
    server.on("Recover", control_pb2.RecoverReply(plan=plan(), message="done"))
    assert fairway("recover", "--plan").code == 0
    ended = fairway("recover")
    assert ended.code == 2
    assert "nobody is here to agree" in ended.err
    assert all(request.plan_only for request in server.asked("Recover"))
    assert "done" in fairway("recover", "--yes").out
    assert server.asked("Recover")[-1].last_index == 17  # what was agreed to, and nothing else
