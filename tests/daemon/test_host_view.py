"""What a host knows: complete states, changes, withdrawal, merging, and the copy on disk."""

from __future__ import annotations

from pathlib import Path

from daemon.agent import host_view
from daemon.agent.host_view import HostView
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState


def task_item(task_id: str) -> HostItem:
    return HostItem(key=f"task/{task_id}", task=objects.Task(meta=objects.Meta(id=task_id)))


def endpoint_item(task_id: str, ready: bool) -> HostItem:
    return HostItem(key=f"endpoint/{task_id}", endpoint=objects.Endpoint(task_id=task_id, ready=ready))


def test_a_complete_state_replaces_and_a_change_adds() -> None:
    view = HostView()
    assert view.apply(HostState(complete=True, revision=5, put=[task_item("a"), task_item("b")])) == {"task"}
    assert view.apply(HostState(revision=6, put=[task_item("c")], removed_keys=["task/a"])) == {"task"}
    assert [task.meta.id for task in view.tasks] == ["b", "c"]
    assert view.apply(HostState(complete=True, revision=2)) == {"task"}
    assert (view.tasks, view.revision, view.complete) == ([], 2, True)


def test_a_task_is_withdrawn_from_the_revision_without_a_ready_endpoint() -> None:
    view = HostView()
    view.apply(HostState(complete=True, revision=5, put=[task_item("a"), endpoint_item("a", True)]))
    assert view.withdrawn_at("a") is None
    view.apply(HostState(revision=8, put=[endpoint_item("a", False)]))
    view.apply(HostState(revision=9, put=[task_item("b")]))
    assert view.withdrawn_at("a") == 8
    view.apply(HostState(revision=10, put=[endpoint_item("a", True)]))
    assert view.withdrawn_at("a") is None


def test_a_task_that_was_ready_for_a_moment_is_withdrawn_from_the_end_of_it() -> None:
    """Another host may have been told in between, and sends to it until it stands at the later revision."""
    ready, not_ready = HostState(revision=8, put=[endpoint_item("a", True)]), endpoint_item("a", False)
    for later in (HostState(revision=9, put=[not_ready]), HostState(revision=9, removed_keys=["endpoint/a"])):
        view = HostView()
        view.apply(HostState(complete=True, revision=5, put=[task_item("a")]))
        view.apply(host_view.merge([ready, later]))
        assert view.withdrawn_at("a") == 9
    view.apply(HostState(complete=True, revision=12, put=[task_item("a"), not_ready]))
    assert view.withdrawn_at("a") == 12


def test_merged_changes_do_what_they_do_one_after_the_other() -> None:
    states = [
        HostState(complete=True, revision=1, put=[task_item("a"), task_item("b")]),
        HostState(revision=2, removed_keys=["task/a"], put=[task_item("c")]),
        HostState(revision=3, put=[task_item("a")], removed_keys=["task/b"]),
    ]
    one_by_one, at_once = HostView(), HostView()
    for state in states:
        one_by_one.apply(state)
    at_once.apply(host_view.merge(states))
    assert {task.meta.id for task in at_once.tasks} == {task.meta.id for task in one_by_one.tasks} == {"a", "c"}
    assert at_once.revision == one_by_one.revision == 3
    changes = host_view.merge(states[1:])
    assert not changes.complete
    assert list(changes.removed_keys) == ["task/b"]


def test_the_copy_on_disk_waits_for_a_leader(tmp_path: Path) -> None:
    view = HostView()
    view.apply(HostState(complete=True, revision=7, put=[task_item("a")]))
    path = tmp_path / "state.pb"
    host_view.save(view.to_state(), path)
    assert path.stat().st_mode & 0o777 == 0o600
    restored = HostView()
    saved = host_view.load(path)
    assert saved is not None
    restored.restore(saved)
    assert ([task.meta.id for task in restored.tasks], restored.complete) == (["a"], False)
    path.write_bytes(b"\xff torn")
    assert host_view.load(path) is None
    assert host_view.load(tmp_path / "nothing") is None
