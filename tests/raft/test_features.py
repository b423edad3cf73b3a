"""Members of different builds: one that does not know a level stops before it, and data it does not know survives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft import snapshot as snapshots
from raft.backup import backup_of, read_backup
from raft.database import FILE_NAME, open_database
from raft.driver import Driver
from raft.entry import transaction_command
from raft.errors import MemberFault
from raft.features import FEATURE_LEVEL, LevelUnknown, level_of, raises_to, too_early
from raft.recovery import read_member
from raft.requests import Propose
from raft.settings import RaftSettings
from raft.store import Store
from raft.transaction import TransactionBuilder

NEWER = FEATURE_LEVEL + 1
WORDS = re.escape(
    f"this build knows feature level {FEATURE_LEVEL}, the cluster is at {NEWER}: upgrade fairway on this host"
)
# Field 900, length-delimited, "later": protobuf's wire format (encoding.md, tags).
FIELD_OF_LATER = b"\xa2\x38\x05later"


def cluster_at(level: int) -> objects.Cluster:
    return objects.Cluster(meta=objects.Meta(id="c", name="c"), feature_level=level)


class Member:
    """A cluster of one member whose build knows `level`, in `folder`."""

    def __init__(self, folder: Path, level: int) -> None:
        settings = RaftSettings(folder, "a", "", 1, bootstrap=True, feature_level=level, state_flush_objects=1)
        self.database = open_database(folder / FILE_NAME)
        self.now = 0.0
        try:
            self.driver = Driver(settings, self.database, self.now, lambda: 0.5)
        except MemberFault:
            self.database.close()
            raise
        self.turns(3)

    def turns(self, count: int = 2) -> None:
        for _ in range(count):
            self.now += 3.0
            self.driver.turn(self.now)

    def write(self, builder: TransactionBuilder) -> None:
        command = transaction_command(builder.build(f"request-{self.now}", "test", 1))
        self.driver.request(Propose("ticket", command))
        self.turns()

    def power_cut(self) -> None:
        self.database.close()


def test_a_member_stops_before_a_command_of_a_later_level(tmp_path: Path) -> None:
    member = Member(tmp_path, FEATURE_LEVEL)
    member.write(TransactionBuilder().create(cluster_at(FEATURE_LEVEL)))
    revision = member.driver.store.revision
    later = objects.Cluster()
    later.CopyFrom(next(iter(member.driver.store.table(objects.Cluster))))
    later.feature_level = NEWER
    with pytest.raises(LevelUnknown, match=WORDS):
        member.write(TransactionBuilder().update(later))
    assert (member.driver.store.revision, level_of(member.driver.store)) == (revision, FEATURE_LEVEL)
    member.power_cut()
    with pytest.raises(LevelUnknown, match=WORDS):  # also the daemon that starts again
        Member(tmp_path, FEATURE_LEVEL)
    newer = Member(tmp_path, NEWER)  # and the upgraded one goes on with the same log
    assert level_of(newer.driver.store) == NEWER
    newer.power_cut()


def test_a_state_of_a_later_level_is_not_opened_and_not_recovered(tmp_path: Path) -> None:
    member = Member(tmp_path, NEWER)
    member.write(TransactionBuilder().create(cluster_at(NEWER)))
    member.driver.close(write=True)
    member.power_cut()
    with pytest.raises(LevelUnknown, match=WORDS):
        Member(tmp_path, FEATURE_LEVEL)
    with pytest.raises(LevelUnknown, match=WORDS):
        read_member(tmp_path)


def test_a_snapshot_or_backup_of_a_later_level_says_so(tmp_path: Path) -> None:
    store = Store()
    store.apply(TransactionBuilder().create(cluster_at(NEWER)).build("r", "test", 1), 7)
    piece = snapshots.Outgoing(snapshots.take(store, 7, 1, ()), 1 << 20).piece
    incoming = snapshots.Incoming(7, 1, 1 << 20)
    incoming.add(piece)
    with pytest.raises(LevelUnknown, match=WORDS):
        incoming.finish(piece.sha256)
    assert snapshots.decode(piece.data, NEWER).feature_level == NEWER

    from proto.backup_file import BackupBroken
    from proto.backup_pb2 import BackupHeader

    path = tmp_path / "backup"
    path.write_bytes(b"".join(backup_of(store, BackupHeader(fairway_version="9.9"))))
    with path.open("rb") as file, pytest.raises(BackupBroken, match=r"newer Fairway \(9\.9\): " + WORDS):
        read_backup(file)


def test_the_level_of_a_cluster_never_falls() -> None:
    store = Store()
    store.apply(TransactionBuilder().create(cluster_at(2)).build("r1", "test", 1), 1)
    lower = objects.Cluster()
    lower.CopyFrom(next(iter(store.table(objects.Cluster))))
    lower.feature_level = 1
    result, changes = store.apply(TransactionBuilder().update(lower).build("r2", "test", 1), 2)
    assert (result.code, changes) == (TransactionResult.INVALID, [])
    assert "never falls" in result.message
    assert level_of(store) == 2


def test_a_leader_proposes_nothing_that_the_cluster_is_not_ready_for() -> None:
    store = Store()
    store.apply(TransactionBuilder().create(cluster_at(1)).build("r1", "test", 1), 1)
    tenant = TransactionBuilder().create(objects.Tenant(meta=objects.Meta(id="t", name="t")))
    assert too_early(store, tenant.build("r2", "test", 1)) == ""
    assert "level 2, the cluster is at 1" in too_early(store, tenant.needs(2).build("r3", "test", 1))
    raising = TransactionBuilder().put(cluster_at(2)).extend(tenant).build("r4", "test", 1)
    assert (raising.feature_level, raises_to(raising), too_early(store, raising)) == (2, 2, "")
    store.apply(raising, 2)
    assert too_early(store, tenant.build("r5", "test", 1)) == ""


def test_a_command_of_the_first_level_has_the_bytes_it_always_had() -> None:
    built = TransactionBuilder().put(cluster_at(1)).build("r", "test", 1)
    assert not built.feature_level
    assert Transaction.FromString(built.SerializeToString()) == built


def test_fields_of_a_later_build_survive_a_change_by_an_old_one() -> None:
    store = Store()
    written = TransactionBuilder().create(objects.Tenant(meta=objects.Meta(id="t", name="t"))).build("r1", "test", 1)
    written.operations[0].object += FIELD_OF_LATER
    store.apply(written, 1)
    changed = objects.Tenant()
    changed.CopyFrom(next(iter(store.table(objects.Tenant))))
    changed.description = "by a build that does not know field 900"
    store.apply(TransactionBuilder().update(changed).build("r2", "test", 2), 2)
    stored = next(iter(store.table(objects.Tenant)))
    assert stored.description
    assert FIELD_OF_LATER in stored.SerializeToString()
