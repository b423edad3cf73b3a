"""A backup file holds what the store held, and anything that happened to the file is noticed."""

from __future__ import annotations

import io
import random

import pytest

from proto import backup_file, passphrase
from proto import objects_pb2 as objects
from proto.backup_file import BackupBroken
from proto.backup_pb2 import BackupHeader
from raft.backup import backup_of, read_backup
from raft.store import Store
from raft.transaction import TransactionBuilder

CLUSTER_ID = "cluster-1"


def filled_store(tenants: int = 50) -> Store:
    store = Store()
    for number in range(tenants):
        tenant = objects.Tenant(meta=objects.Meta(id=f"t{number}", name=f"name-{number}"), description="x" * number)
        store.apply(TransactionBuilder().create(tenant).build(f"request-{number}", "test", 1), number + 2)
    return store


def backup(store: Store) -> bytes:
    header = BackupHeader(cluster_id=CLUSTER_ID, cluster_name="test", fairway_version="1", created_unix_ms=1)
    return b"".join(backup_of(store, header))


def test_what_was_written_is_read() -> None:
    store = filled_store()
    content = backup(store)
    header, snapshot = read_backup(io.BytesIO(content))
    assert (header.cluster_id, header.revision, snapshot.revision) == (CLUSTER_ID, store.revision, store.revision)
    again = Store()
    again.restore(snapshot.objects, snapshot.requests, snapshot.revision)
    assert list(again.objects()) == list(store.objects())
    assert again.remembers("request-7")
    contents = backup_file.verify(io.BytesIO(content))
    assert contents.counts == {"tenants": 50}


def test_writes_while_it_is_made_are_not_in_it() -> None:
    store = filled_store()
    pieces = backup_of(store, BackupHeader(cluster_id=CLUSTER_ID))
    first = next(pieces)
    late = objects.Tenant(meta=objects.Meta(id="late", name="late"))
    store.apply(TransactionBuilder().create(late).build("late", "test", 1), store.revision + 1)
    _, snapshot = read_backup(io.BytesIO(first + b"".join(pieces)))
    assert len(snapshot.objects) == 50


def test_every_cut_and_every_flipped_byte_is_noticed() -> None:
    content = backup(filled_store())
    choose = random.Random(7)
    for position in choose.sample(range(len(content)), 200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << choose.randrange(8)
        for damaged in (content[:position], bytes(flipped)):
            with pytest.raises(BackupBroken):
                backup_file.verify(io.BytesIO(damaged))
            with pytest.raises(BackupBroken):
                read_backup(io.BytesIO(damaged))


@pytest.mark.parametrize("content", [b"", b"hello", backup_file.MAGIC, b"x" * 4096])
def test_what_is_no_backup_is_refused(content: bytes) -> None:
    with pytest.raises(BackupBroken):
        backup_file.verify(io.BytesIO(content))


def test_something_behind_the_end_is_refused() -> None:
    with pytest.raises(BackupBroken, match="follows its end"):
        backup_file.verify(io.BytesIO(backup(filled_store()) + b"x"))


def test_a_newer_format_is_refused_with_a_clear_word() -> None:
    header = BackupHeader(format=9, fairway_version="9.0")
    writer = backup_file.BackupWriter()
    content = writer.begin(header) + writer.end()
    with pytest.raises(BackupBroken, match=r"format 9, written by Fairway 9\.0.*newer software"):
        backup_file.verify(io.BytesIO(content))


def test_only_the_right_passphrase_opens_the_cluster_key() -> None:
    secret = b"k" * 32
    seal = passphrase.new_seal()
    seal.scrypt_log2_n = 10  # quick
    key = passphrase.sealing_key(b"correct horse battery", seal)
    filled = passphrase.sealed(seal, key, secret, CLUSTER_ID)
    assert secret not in filled.SerializeToString()
    assert passphrase.unsealed(filled, key, CLUSTER_ID) == secret
    with pytest.raises(passphrase.WrongPassphrase, match="not the one"):
        passphrase.unsealed(filled, passphrase.sealing_key(b"wrong horse battery!", filled), CLUSTER_ID)
    with pytest.raises(passphrase.WrongPassphrase):
        passphrase.unsealed(filled, key, "another-cluster")


def test_a_short_passphrase_and_absurd_numbers_are_refused() -> None:
    assert passphrase.passphrase_of(b"long enough it is\r\nsecond line\n") == b"long enough it is"
    with pytest.raises(passphrase.WrongPassphrase, match="bytes"):
        passphrase.passphrase_of(b"short\n")
    seal = passphrase.new_seal()
    seal.scrypt_log2_n = 40
    with pytest.raises(passphrase.WrongPassphrase, match="damaged"):
        passphrase.sealing_key(b"correct horse battery", seal)
