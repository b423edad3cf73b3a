"""Schedules, what a loss would mean, and what restore and recover keep: all without a cluster that runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from daemon.api.raft_status_plan import if_lost, raft_status
from daemon.backup.disaster_plan import recover_plan, require_best_survivor
from daemon.backup.restore import restored
from daemon.backup.schedule_plan import file_name, plan_schedule
from daemon.config import ConfigError, load
from daemon.errors import Refused
from daemon.identity.authority import open_authority
from daemon.identity.identity import Identity
from net.addresses import tunnel_mac
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.backup_pb2 import BackupHeader
from proto.passphrase import new_seal, sealed, sealing_key
from raft.backup import backup_of
from raft.recovery import StoredMember, read_member
from raft.settings import Peer
from tests.daemon.small_cluster import ADDRESS, SmallCluster, config_in, now_unix_ms

DAY_MS = 86_400_000
NOON = 1_800_000_000_000


def names(*ages_days: int, cluster: str = "prod") -> list[str]:
    return [file_name(cluster, NOON - age * DAY_MS, 7) for age in ages_days]


def test_a_schedule_keeps_the_newest_and_touches_nothing_else() -> None:
    listed = [*names(1, 2, 3, 4), *names(9, cluster="other"), "notes.txt", "prod-x-r1.fairway-backup"]
    step = plan_schedule(listed, "prod", NOON, DAY_MS, keep=2)
    assert step.due
    assert step.remove == (*names(4), *names(3))
    assert plan_schedule([], "prod", NOON, DAY_MS, keep=2).due
    later = plan_schedule(names(0), "prod", NOON + DAY_MS // 4, DAY_MS, keep=2)
    assert not later.due
    assert later.wait_ms == DAY_MS * 3 // 4


def test_a_clock_that_went_back_waits_one_period_at_most() -> None:
    step = plan_schedule(names(-100), "prod", NOON, DAY_MS, keep=2)
    assert (step.due, step.wait_ms) == (False, DAY_MS)


@pytest.mark.parametrize(
    ("lost", "voters", "up", "expected"),
    [
        ("a", "abc", "abc", "cluster goes on, another host leads within 2 s"),
        ("b", "abc", "abc", "cluster goes on"),
        ("b", "abc", "ab", "no majority (1 of 3 left): refuses writes"),
        ("c", "abc", "ab", "cluster goes on"),  # it is lost already
        ("d", "abc", "abc", "cluster goes on"),
        ("a", "a", "a", "no majority (0 of 1 left): refuses writes"),
        ("b", "abcde", "abcd", "cluster goes on"),
        ("b", "abcde", "abc", "no majority (2 of 5 left): refuses writes"),
    ],
)
def test_what_a_loss_would_mean(lost: str, voters: str, up: str, expected: str) -> None:
    assert if_lost(lost, voters, up, "a") == expected


def member(role: str, term: int = 3, quorum: bool = True, revision: int = 10) -> host.RaftMember:
    return host.RaftMember(role=role, term=term, quorum=quorum, voters=["a", "b", "c"], applied_revision=revision)


def node(name: str) -> objects.Node:
    made = objects.Node(meta=objects.Meta(id=name, name=f"host-{name}"), role=objects.NODE_ROLE_VOTER)
    made.address, made.raft_port, made.api_port = f"192.0.2.{ord(name)}", 7444, 7443
    return made


def test_an_old_leader_that_hears_no_majority_is_not_believed() -> None:
    answers: dict[str, host.RaftMember | str] = {
        "a": member("leader", term=3, quorum=False),
        "b": member("leader", term=4),
        "c": "does not answer",
    }
    reply = raft_status([node("a"), node("b"), node("c")], answers, "a")
    assert reply.leader_id == "b"
    assert (reply.term, reply.voters_up, reply.quorum) == (4, 2, True)
    assert "can lose no voter more" in reply.summary
    assert [one.role for one in reply.members] == ["leader", "leader", "unknown"]
    assert reply.members[2].problem == "does not answer"


def stored_member(cluster: SmallCluster) -> StoredMember:
    peers = tuple(Peer(one, ADDRESS, 7444) for one in "abc")
    return StoredMember(cluster.store, peers, 3, 20, 18)


def test_recover_says_what_is_kept_and_lost(tmp_path: Path) -> None:
    plan = recover_plan(stored_member(SmallCluster(tmp_path)), "a", {}, 60_000)
    assert plan.unconfirmed_entries == 2
    assert plan.dropped_nodes == ["b", "c"]
    text = " ".join([*plan.kept, *plan.lost])
    assert "2 entries" in text
    assert "60 s ago" in text
    assert "votes of b and c" in text


def test_recover_refuses_with_a_majority_without_a_vote_and_beside_a_better_survivor(tmp_path: Path) -> None:
    stored = stored_member(SmallCluster(tmp_path))
    with pytest.raises(Refused, match="2 of 3 voters are up"):
        recover_plan(stored, "a", {"b": member("follower")}, -1)
    recover_plan(stored, "a", {"b": member("stopped")}, -1)
    with pytest.raises(Refused, match="had no vote"):
        recover_plan(stored, "x", {}, -1)
    with pytest.raises(Refused, match="recover there"):
        require_best_survivor(stored, {"b": member("candidate", revision=99)}, {"b": "host-b"})


def test_a_backup_becomes_a_cluster_with_this_host_as_its_only_voter(tmp_path: Path) -> None:
    old = SmallCluster(tmp_path / "old")
    seal = new_seal()
    seal.scrypt_log2_n = 10
    key = sealing_key(b"correct horse battery", seal)
    assert old.identity.cluster_key is not None
    header = BackupHeader(cluster_id=old.identity.cluster_id, cluster_name="test", fairway_version="1")
    header.seal.CopyFrom(sealed(seal, key, old.identity.cluster_key, old.identity.cluster_id))
    content = b"".join(backup_of(old.store, header, 5))
    assert old.identity.cluster_key not in content

    config = config_in(tmp_path / "new", "second")
    request = control.RestoreRequest(sealing_key=key, node_name="second", address=ADDRESS)
    description = objects.NodeDescription(hostname="second")
    made = restored(config, io.BytesIO(content), request, description, now_unix_ms(), tunnel_mac)
    made.write()
    identity = Identity.load(config.identity_folder)
    assert identity is not None
    assert identity.cluster_id == old.identity.cluster_id
    assert identity.ca_certificate == old.identity.ca_certificate
    assert identity.node_id != old.identity.node_id
    stored = read_member(config.host.state_folder / "raft")
    assert [peer.node_id for peer in stored.membership] == [identity.node_id]
    nodes = list(stored.store.table(objects.Node))
    assert [one.meta.name for one in nodes] == ["second"]  # it took the old host's address, and so its place
    assert made.reply.plan.dropped_nodes == ["first"]
    cluster = next(iter(stored.store.table(objects.Cluster)))
    open_authority(cluster, identity.cluster_key)

    request.sealing_key = b"x" * 32
    with pytest.raises(Refused, match="passphrase"):
        restored(config, io.BytesIO(content), request, description, now_unix_ms(), tunnel_mac)
    with pytest.raises(Refused, match="cannot be used"):
        restored(config, io.BytesIO(content[:-1]), request, description, now_unix_ms(), tunnel_mac)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[backup]\nfolder = "/var/backups"', "passphrase_file"),
        ('[backup]\npassphrase_file = "/etc/p"', "of no use without folder"),
        ('[backup]\nfolder = "backups"\npassphrase_file = "/etc/p"', "absolute"),
        ("[backup]\nkeep = 0", "between"),
        ("[timing]\nvoter_replace_ms = 1", "between"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "fairwayd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(path)
