"""The file of a member: a power cut at any point loses nothing acknowledged, and damage is noticed."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.database import FILE_NAME, open_database
from raft.driver import Driver
from raft.entry import transaction_command
from raft.errors import DiskFull, MemberFault
from raft.requests import Propose
from raft.settings import RaftSettings
from raft.transaction import TransactionBuilder
from raft.wal_check import check_wal

SETTINGS = {"state_flush_objects": 7, "log_entries_kept_max": 10}


class Alone:
    """A cluster of one member in `folder`, at a time of its own."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.settings = RaftSettings(
            folder,
            "a",
            "",
            1,
            bootstrap=True,
            **{**SETTINGS, **settings},  # type: ignore[arg-type]
        )
        self.database = open_database(folder / FILE_NAME)
        self.now = 100.0
        self.driver = Driver(self.settings, self.database, self.now, lambda: 0.5)
        self.acknowledged: list[str] = []
        for _ in range(3):
            self.turn()

    def turn(self, seconds: float = 0.01) -> None:
        self.now += seconds
        for ticket, outcome in self.driver.turn(self.now).answers:
            assert isinstance(outcome, TransactionResult) and outcome.code == TransactionResult.OK, outcome
            self.acknowledged.append(str(ticket))

    def write(self, name: str) -> None:
        tenant = objects.Tenant(meta=objects.Meta(id=name, name=name))
        transaction = TransactionBuilder().create(tenant).build(f"request-{name}", "test", 1)
        self.driver.request(Propose(name, transaction_command(transaction)))
        self.turn()

    def names(self) -> list[str]:
        return sorted(tenant.meta.id for tenant in self.driver.store.table(objects.Tenant))

    def close(self) -> None:
        self.database.close()


def copy_of(folder: Path, to: Path) -> Path:
    """What a power cut leaves: the files as they are, with nothing closed."""
    return Path(shutil.copytree(folder, to))


def test_a_power_cut_after_any_write_loses_nothing_acknowledged(tmp_path: Path) -> None:
    member = Alone(tmp_path / "a")
    copies = []
    for number in range(30):
        member.write(f"t{number:02}")
        copies.append((copy_of(tmp_path / "a", tmp_path / f"cut{number}"), list(member.acknowledged)))
    member.close()
    assert len(member.acknowledged) == 30
    assert member.driver.journal.first_index > 5  # the log was compacted on the way
    for folder, acknowledged in copies:
        again = Alone(folder)
        assert again.names() == acknowledged
        again.write("after")
        assert again.names() == ["after", *acknowledged]
        again.close()


def test_a_request_is_remembered_across_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        member = Alone(tmp_path)
        member.write("t1")
        assert member.acknowledged == ["t1"]
        assert member.names() == ["t1"]
        member.driver.close(write=True)
        member.close()
    (count,) = sqlite3.connect(tmp_path / FILE_NAME).execute("select count(*) from requests").fetchone()
    assert count == 1


def test_a_vote_and_its_term_survive(tmp_path: Path) -> None:
    database = open_database(tmp_path / FILE_NAME)
    driver = Driver(RaftSettings(tmp_path, "b", "", 1), database, 0.0, lambda: 0.5)
    driver.journal.setCurrentTerm(7, "c")
    driver.turn(0.1)
    database.close()
    database = open_database(tmp_path / FILE_NAME)
    driver = Driver(RaftSettings(tmp_path, "b", "", 1), database, 0.0, lambda: 0.5)
    assert (driver.journal.getCurrentTerm(), driver.journal.getVotedForNodeId()) == (7, "c")
    with pytest.raises(MemberFault, match="vote"):
        driver.journal.setCurrentTerm(7, "d")
    with pytest.raises(MemberFault, match="take back"):
        driver.journal.setCurrentTerm(6, None)
    database.close()


def test_a_person_reads_the_tables(tmp_path: Path) -> None:
    member = Alone(tmp_path)
    member.write("t1")
    for _ in range(5):
        member.turn(1.5)
    rows = sqlite3.connect(tmp_path / FILE_NAME).execute("select id, name, version, text from tenants").fetchall()
    assert rows[0][:3] == ("t1", "t1", member.driver.store.revision)
    assert '"name": "t1"' in rows[0][3]
    member.close()


@pytest.mark.parametrize(
    "damage",
    [
        "update raft_log set command = x'00ff' where log_index = (select max(log_index) from raft_log)",
        "update raft_log set term = term + 1 where log_index = (select max(log_index) from raft_log)",
        "delete from raft_log where log_index = (select max(log_index) - 1 from raft_log)",
        "delete from raft_log",
        "update raft_state set voted_for = 'somebody else'",
        "update raft_state set term = 0",
        "update tenants set object = x'0a00'",
        "update store_state set applied_index = applied_index + 1",
        "update requests set result = x''",
        "pragma user_version = 99",
    ],
)
def test_damage_is_noticed_before_anything_is_voted_or_served(tmp_path: Path, damage: str) -> None:
    member = Alone(tmp_path)
    for number in range(9):
        member.write(f"t{number}")
    member.driver.close(write=True)
    member.close()
    database = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    database.execute(damage)
    database.close()
    with pytest.raises(MemberFault, match=r"damaged|missing|together|format|ahead"):
        Alone(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_of_any_file_is_noticed_or_changes_nothing_but_the_newest_write(
    tmp_path: Path, seed: int
) -> None:
    """Of the newest transaction SQLite's log cannot say whether it was interrupted or damaged (raft/wal_check.py)."""
    choose = random.Random(seed)
    member = Alone(tmp_path / "sound", state_flush_objects=10_000)
    for number in range(40):
        member.write(f"t{number:02}")
    written = member.names()
    files = [path for path in (tmp_path / "sound").iterdir() if not path.name.endswith("-shm")]
    contents = {path.name: path.read_bytes() for path in files}  # as a power cut leaves them
    member.close()
    refused = 0
    for number in range(25):
        folder = tmp_path / f"flipped-{number}"
        folder.mkdir()
        name = choose.choice(sorted(contents))
        flipped = bytearray(contents[name])
        flipped[choose.randrange(len(flipped))] ^= 1 << choose.randrange(8)
        for other, content in contents.items():
            (folder / other).write_bytes(bytes(flipped) if other == name else content)
        try:
            again = Alone(folder)
        except MemberFault:
            refused += 1
            continue
        assert again.names() in (written, written[:-1])
        again.close()
    assert refused >= 3


def test_a_write_that_a_power_cut_interrupted_is_no_damage(tmp_path: Path) -> None:
    member = Alone(tmp_path / "sound")
    for number in range(5):
        member.write(f"t{number}")
    before = (tmp_path / "sound" / f"{FILE_NAME}-wal").read_bytes()
    member.write("t5")
    after = (tmp_path / "sound" / f"{FILE_NAME}-wal").read_bytes()
    member.close()
    assert after[: len(before)] == before
    for kept_bytes in range(len(before), len(after), 97):
        journal = tmp_path / f"{FILE_NAME}-wal"
        journal.write_bytes(after[:kept_bytes])
        check_wal(tmp_path / FILE_NAME)
        journal.write_bytes(after[:kept_bytes] + bytes(len(after) - kept_bytes))
        check_wal(tmp_path / FILE_NAME)


def test_a_file_of_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    with pytest.raises(MemberFault, match="cannot be opened"):
        Alone(tmp_path)


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(tmp_path: Path) -> None:
    member = Alone(tmp_path / "a")
    member.write("t1")
    (pages,) = member.database.execute("pragma page_count").fetchone()
    member.database.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(DiskFull, match="room"):
        for number in range(2, 2000):
            member.write(f"t{number}")
    acknowledged = list(member.acknowledged)
    member.driver.close(write=False)
    member.close()
    again = Alone(tmp_path / "a")
    assert again.names() == sorted(acknowledged)
    again.close()


def test_the_log_is_compacted_by_bytes_too(tmp_path: Path) -> None:
    member = Alone(tmp_path, log_entries_kept_max=10_000, log_bytes_kept_max=2000)
    for number in range(200):
        member.write(f"t{number}")
    assert member.driver.journal.bytes_kept < 3000
    assert len(member.names()) == 200
    member.close()
