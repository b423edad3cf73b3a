"""What people type, and what they meant."""

from __future__ import annotations

import pytest

from daemon import lookup
from daemon.api import control_views
from daemon.errors import Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


@pytest.fixture
def store() -> Store:
    made, builder = Store(), TransactionBuilder()
    builder.create(objects.Node(meta=objects.Meta(id="n1", name="host-1")))
    builder.create(objects.App(meta=objects.Meta(id="a1", name="shop")))
    builder.create(objects.Service(meta=objects.Meta(id="s1", name="web"), app="shop"))
    for slot in (1, 2):
        meta = objects.Meta(id=f"task{slot}", name=f"web.{slot}")
        builder.create(objects.Task(meta=meta, app="shop", service="web", service_id="s1", slot=slot))
    made.apply(builder.build("r", "test", 1), 1)
    return made


def test_a_name_that_is_near_is_guessed(store: Store) -> None:
    for find, typed, meant in (
        (lookup.find_node, "hots-1", "host-1"),
        (lookup.find_app, "shpo", "shop"),
        (lookup.find_service, "wbe", "web"),
        (lookup.find_tasks, "shop/wb.1", "shop/web.1"),
    ):
        with pytest.raises(Refused, match=rf"there is no .*\(did you mean {meant}") as refused:
            find(store, typed)
        assert typed in refused.value.message
    with pytest.raises(Refused) as other:
        lookup.find_tasks(store, "something-else")
    assert "did you mean" not in other.value.message


def test_a_task_is_listed_by_its_name_or_the_beginning_of_its_id(store: Store) -> None:
    for app, service in (("shop", "web.2"), ("", "web.2"), ("", "task2")):
        reply = control_views.list_tasks(store, control.ListTasksRequest(app=app, service=service))
        assert [task.meta.id for task in reply.tasks] == ["task2"]
        assert [found.meta.name for found in reply.services] == ["web"]
    with pytest.raises(Refused, match=r"'shop/web\.3'"):
        control_views.list_tasks(store, control.ListTasksRequest(app="shop", service="web.3"))
