"""The store: all of a transaction or none, versions, unique keys, request ids, watches."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from proto import objects_pb2 as objects
from proto.store_pb2 import Operation, Transaction, TransactionResult
from raft import store as stores
from raft.store import ANY_VERSION, Change, Store
from raft.transaction import TransactionBuilder, chained, chained_version, resolved


def service(identifier: str, name: str = "", app: str = "shop") -> objects.Service:
    return objects.Service(meta=objects.Meta(id=identifier, name=name or identifier, tenant="default"), app=app)


def commit(store: Store, builder: TransactionBuilder, request_id: str = "") -> TransactionResult:
    revision = store.revision + 1
    result, _ = store.apply(builder.build(request_id, "test", 1000 + revision), revision)
    return result


def test_what_is_written_gets_the_revision_and_its_times() -> None:
    store = Store()
    assert commit(store, TransactionBuilder().create(service("s1"))).code == TransactionResult.OK
    first = store.get(objects.Service, "s1")
    assert first is not None
    assert (first.meta.version, first.meta.created_unix_ms, first.meta.updated_unix_ms) == (1, 1001, 1001)
    assert commit(store, TransactionBuilder().update(first)).revision == 2
    second = store.get(objects.Service, "s1")
    assert second is not None
    assert (second.meta.version, second.meta.created_unix_ms, second.meta.updated_unix_ms) == (2, 1001, 1002)
    assert first.meta.version == 1  # what a reader holds never changes


def test_one_stale_version_undoes_the_whole_transaction() -> None:
    store = Store()
    commit(store, TransactionBuilder().create(service("s1")).create(service("s2")))
    old = store.get(objects.Service, "s1")
    assert old is not None
    commit(store, TransactionBuilder().update(old))
    result = commit(store, TransactionBuilder().create(service("s3")).update(old))
    assert (result.code, result.table, result.id) == (TransactionResult.CONFLICT, "services", "s1")
    assert result.revision == store.revision == 2
    assert store.get(objects.Service, "s3") is None
    assert commit(store, TransactionBuilder().create(service("s1"))).code == TransactionResult.CONFLICT
    assert commit(store, TransactionBuilder().delete(old)).code == TransactionResult.CONFLICT


def test_a_check_guards_without_writing() -> None:
    store = Store()
    commit(store, TransactionBuilder().create(service("s1")))
    seen = store.get(objects.Service, "s1")
    assert seen is not None
    assert commit(store, TransactionBuilder().check(seen).create(service("s2"))).code == TransactionResult.OK
    commit(store, TransactionBuilder().put(service("s1")))
    late = commit(store, TransactionBuilder().check(seen).create(service("s3")))
    assert late.code == TransactionResult.CONFLICT


def test_unique_names_are_unique_within_their_app_and_can_be_swapped() -> None:
    store = Store()
    commit(store, TransactionBuilder().create(service("s1", "web")).create(service("s2", "db")))
    assert commit(store, TransactionBuilder().create(service("s3", "web"))).code == TransactionResult.DUPLICATE
    assert commit(store, TransactionBuilder().create(service("s4", "web", "blog"))).code == TransactionResult.OK
    twins = TransactionBuilder().create(service("s5", "x")).create(service("s6", "x"))
    assert commit(store, twins).code == TransactionResult.DUPLICATE
    swap = TransactionBuilder().put(service("s1", "db")).put(service("s2", "web"))
    assert commit(store, swap).code == TransactionResult.OK
    found = store.table(objects.Service).unique("name", ("default", "shop", "web"))
    assert found is not None and found.meta.id == "s2"
    move = TransactionBuilder().delete(found).create(service("s7", "web"))
    assert commit(store, move).code == TransactionResult.OK


def test_indexes_follow_changes() -> None:
    store = Store()
    task = objects.Task(meta=objects.Meta(id="t1"), service_id="s1", app="shop")
    commit(store, TransactionBuilder().create(task))
    table = store.table(objects.Task)
    assert [one.meta.id for one in table.by("service", "s1")] == ["t1"]
    assert table.by("node", "n1") == []
    task.node_id = "n1"
    commit(store, TransactionBuilder().put(task))
    assert [one.meta.id for one in table.by("node", "n1")] == ["t1"]
    stored = table.get("t1")
    assert stored is not None
    commit(store, TransactionBuilder().delete(stored))
    assert table.by("node", "n1") == [] and len(table) == 0


def test_a_repeated_request_returns_the_first_result_and_changes_nothing() -> None:
    store = Store()
    first = commit(store, TransactionBuilder().create(service("s1")), "request")
    again = commit(store, TransactionBuilder().create(service("s2")), "request")
    assert again == first and store.get(objects.Service, "s2") is None
    failed = commit(store, TransactionBuilder().create(service("s1")), "other")
    assert commit(store, TransactionBuilder().create(service("s3")), "other") == failed


def test_request_ids_are_forgotten_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "REQUESTS_REMEMBERED_MAX", 3)
    store = Store()
    for number in range(5):
        commit(store, TransactionBuilder().create(service(f"s{number}")), f"r{number}")
    assert [request for request, _ in store.requests()] == ["r2", "r3", "r4"]


@pytest.mark.parametrize(
    "operation",
    [
        Operation(table="nothing", id="x", object=b"x"),
        Operation(table="services", id="x", object=b"\xff\xff\xff"),
        Operation(table="services", id="x", object=service("y").SerializeToString()),
        Operation(table="services", id="", object=service("").SerializeToString()),
        Operation(table="services", id="i" * 500, expected_version=ANY_VERSION),
    ],
)
def test_nonsense_is_refused_as_a_value(operation: Operation) -> None:
    store = Store()
    result, changes = store.apply(Transaction(format=1, operations=[operation]), 1)
    assert result.code == TransactionResult.INVALID and result.message
    assert changes == [] and store.revision == 0


def test_the_builder_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="twice"):
        TransactionBuilder().create(service("s1")).put(service("s1"))
    with pytest.raises(ValueError, match="not read from a store"):
        TransactionBuilder().update(service("s1"))
    with pytest.raises(TypeError, match="not an object of the store"):
        TransactionBuilder().create(objects.Endpoint())
    with pytest.raises(ValueError, match=r"meta\.id"):
        TransactionBuilder().create(objects.Service())


def test_watchers_see_every_change_in_order_and_resync_when_slow() -> None:
    async def main() -> None:
        store = Store()
        async with store.watch() as fast, store.watch(changes_max=2) as slow:
            for number in range(4):
                commit(store, TransactionBuilder().create(service(f"s{number}")))
            for number in range(4):
                batch = await fast.__anext__()
                assert (batch.revision, [change.id for change in batch.changes]) == (number + 1, [f"s{number}"])
            batch = await slow.__anext__()
            assert batch.resync and batch.revision == 4
            with trio.move_on_after(0) as nothing_more:
                await slow.__anext__()
            assert nothing_more.cancelled_caught

    trio.run(main)


def test_changed_wakes_and_a_replica_follows() -> None:
    async def main() -> None:
        store, replica, reached = Store(), Store(), []

        async def wait() -> None:
            reached.append(await replica.changed(0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            _, changes = store.apply(TransactionBuilder().create(service("s1")).build("", "", 5), 7)
            replica.absorb(changes, 7)
        assert reached == [7]
        assert replica.get(objects.Service, "s1") == store.get(objects.Service, "s1")
        assert changes == [Change("services", "s1", None, store.get(objects.Service, "s1"))]

    trio.run(main)


def test_a_restored_store_equals_its_source() -> None:
    store, other = Store(), Store()
    commit(store, TransactionBuilder().create(service("s1")), "r1")
    other.restore(store.objects(), store.requests(), store.revision)
    assert list(other.objects()) == list(store.objects())
    assert commit(other, TransactionBuilder().create(service("s9")), "r1").revision == 1


def test_a_rehearsal_leaves_nothing_behind() -> None:
    store = Store()
    first = objects.Tenant(meta=objects.Meta(id="a", name="first"))
    store.apply(TransactionBuilder().create(first).build("r", "test", 1), 5)
    before = sorted(one.SerializeToString(deterministic=True) for _, one in store.objects())
    with store.rehearsal() as rehearse:
        stored = store.get(objects.Tenant, "a")
        assert stored is not None
        passed_on = objects.Tenant(meta=objects.Meta(id="b", name="first"))
        renamed = objects.Tenant()
        renamed.CopyFrom(stored)
        renamed.meta.name = "second"
        builder = TransactionBuilder().update(renamed).create(passed_on)
        assert rehearse(builder.build("", "test", 1), chained_version(0))
        found = store.table(objects.Tenant).unique("name", "first")
        assert found is not None and found.meta.id == "b" and found.meta.version == chained_version(0)
        assert not rehearse(TransactionBuilder().update(renamed).build("", "test", 1), chained_version(1))
    assert sorted(one.SerializeToString(deterministic=True) for _, one in store.objects()) == before
    found = store.table(objects.Tenant).unique("name", "first")
    assert found is not None and found.meta.id == "a" and store.revision == 5
    assert store.table(objects.Tenant).unique("name", "second") is None


def test_what_depends_on_a_transaction_that_came_to_nothing_comes_to_nothing() -> None:
    store = Store()
    first = TransactionBuilder().create(objects.Tenant(meta=objects.Meta(id="a", name="a"))).build("1", "test", 1)
    second = TransactionBuilder().create(objects.Tenant(meta=objects.Meta(id="b", name="b"))).build("2", "test", 1)
    assert chained(second, first, 0)
    assert not chained(second, TransactionBuilder().delete(_at_version("a", 3)).build("3", "test", 1), 0)
    assert store.apply(resolved(second, [7]), 8)[0].code == TransactionResult.CONFLICT
    second.request_id = "4"
    assert store.apply(second, 9)[0].code == TransactionResult.CONFLICT  # a version that nothing ever has
    second.request_id = "5"
    assert store.apply(first, 10)[0].code == TransactionResult.OK
    assert store.apply(resolved(second, [10]), 11)[0].code == TransactionResult.OK


def _at_version(identifier: str, version: int) -> objects.Tenant:
    return objects.Tenant(meta=objects.Meta(id=identifier, name=identifier, version=version))
