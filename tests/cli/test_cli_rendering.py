"""Tables, plain JSON, units, and progress on a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest

from cli import output, words
from cli.live import Live
from cli.progress_plan import Progress, deploy_progress, drain_progress, news, render
from proto import control_pb2, objects_pb2

RUNNING, FAILED = objects_pb2.TASK_STATE_RUNNING, objects_pb2.TASK_STATE_FAILED
PENDING, EXITED, LOST = (
    objects_pb2.TASK_STATE_PENDING,
    objects_pb2.TASK_STATE_EXITED,
    objects_pb2.TASK_STATE_LOST,
)


def service(name: str, replicas: int, generation: int = 1, **fields: object) -> objects_pb2.Service:
    made = objects_pb2.Service(app="shop", generation=generation, **fields)  # type: ignore[arg-type]
    made.meta.id, made.meta.name, made.spec.replicas = f"id-{name}", name, replicas
    return made


def task(
    name: str,
    slot: int,
    state: objects_pb2.TaskState.ValueType = RUNNING,
    ready: bool = False,
    generation: int = 1,
    **status: object,
) -> objects_pb2.Task:
    made = objects_pb2.Task(app="shop", service=name, service_id=f"id-{name}", slot=slot, generation=generation)
    made.meta.id, made.meta.name, made.node_id = f"{name}{slot}-{generation}-{state}", f"{name}.{slot}", "n1"
    made.status.CopyFrom(objects_pb2.TaskStatus(state=state, ready=ready, **status))  # type: ignore[arg-type]
    return made


def listing(services: list[objects_pb2.Service], tasks: list[objects_pb2.Task]) -> control_pb2.ListTasksReply:
    return control_pb2.ListTasksReply(services=services, tasks=tasks)


def never_restarted(made: objects_pb2.Task) -> objects_pb2.Task:
    made.spec.restart.condition = objects_pb2.RestartPolicy.CONDITION_NONE
    return made


@pytest.mark.parametrize(
    ("tasks", "mark", "text"),
    [
        ([], "going", "0/2 ready"),
        ([task("web", 1, ready=True)], "going", "1/2 ready"),
        ([task("web", 1, ready=True), task("web", 2, ready=True)], "done", "2/2 ready"),
        (
            [task("web", 1, ready=True), task("web", 2, ready=True), task("web", 1, generation=0)],
            "going",
            "2/2 ready, 1 older task still running",
        ),
        ([task("web", 1, ready=True), task("web", 2, ready=True), task("web", 3)], "going", None),
        ([task("web", 1, ready=True), task("web", 2, ready=True), task("web", 1, LOST)], "done", "2/2 ready"),
        ([never_restarted(task("web", n, EXITED)) for n in (1, 2)], "done", "2/2 completed"),
        ([never_restarted(task("web", n, FAILED)) for n in (1, 2)], "failed", "0/2 ready"),
        ([task("web", n, FAILED) for n in (1, 2)], "going", "0/2 ready"),
    ],
)
def test_when_a_service_is_done(tasks: list[objects_pb2.Task], mark: str, text: str | None) -> None:
    line = deploy_progress(listing([service("web", 2)], tasks)).lines[0]
    assert line.mark == mark
    assert text is None or line.text == text


def test_reasons_are_said_once_for_all_tasks() -> None:
    tasks = [task("web", n, PENDING, message="no host has 64G") for n in (1, 2, 3)]
    line = deploy_progress(listing([service("web", 3)], tasks)).lines[0]
    assert line.reasons == ("web.1 and 2 more pending: no host has 64G",)


def test_a_removed_service_is_waited_for() -> None:
    progress = deploy_progress(listing([service("old", 1, removing=True)], [task("old", 1)]))
    assert not progress.done
    assert progress.lines[0].text == "removing, 1 task left"


def test_a_drain_is_done_when_nothing_goes_on_there() -> None:
    node = objects_pb2.Node(meta=objects_pb2.Meta(id="n1", name="host-1"))
    going = drain_progress(listing([], [task("web", 1), task("web", 2, EXITED)]), node, {"shop/web": ["full"]})
    assert [(line.name, line.text, line.reasons) for line in going.lines] == [
        ("shop/web", "1 task left on host-1", ("full",))
    ]
    assert drain_progress(listing([], [task("web", 2, EXITED)]), node, {}).done


def progressing() -> tuple[Progress, Progress]:
    services = [service("web", 2)]
    before = deploy_progress(listing(services, [task("web", 1, PENDING, message="no room" * 30)]))
    after = deploy_progress(listing(services, [task("web", 1, ready=True), task("web", 2, ready=True)]))
    return before, after


def test_a_pipe_gets_plain_whole_lines_for_changes_only() -> None:
    before, after = progressing()
    stream = io.StringIO()
    live = Live(stream)
    for progress in (before, before, after):
        live.show(progress)
    lines = stream.getvalue().splitlines()
    assert lines == ["web: 0/2 ready", f"web: web.1 pending: {'no room' * 30}", "web: 2/2 ready"]
    assert news(after, Progress(())) == ["web: gone"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_with_colours_unless_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    for forbidden, expected in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", forbidden)
        before, after = progressing()
        stream = _Terminal()
        live = Live(stream)
        live.show(before)
        live.show(after)
        assert ("\x1b[32m✔" in stream.getvalue()) is expected
        assert "\x1b[2A\r\x1b[J" in stream.getvalue()
    assert all(len(line) <= 40 for line in render(before, 40, colour=False))


def test_tables_are_aligned_and_cut_on_terminals_only() -> None:
    rows = [("a", "long " * 20), ("bbb", "x\ny")]
    lines = output.table(("N", "TEXT"), rows)
    assert lines == ["N     TEXT", f"a     {('long ' * 20).rstrip()}", "bbb   x y"]
    assert all(len(line) <= 30 for line in output.table(("N", "TEXT"), rows, 30))


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [(0, "0s"), (59_999, "59s"), (200_000, "3m"), (7_800_000, "2h10m"), (90_000_000, "1d1h"), (10**9, "11d")],
)
def test_durations(milliseconds: int, expected: str) -> None:
    assert words.duration(milliseconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0B"), (999, "999B"), (1536, "1.5K"), (512 << 20, "512M"), (3 << 40, "3T")]
)
def test_sizes(count: int, expected: str) -> None:
    assert words.size(count) == expected


def test_json_has_every_field_numbers_as_numbers_and_enums_as_words() -> None:
    made = objects_pb2.Node(state=objects_pb2.NODE_STATE_READY, public_key_sha256=b"\x01\xff")
    made.meta.created_unix_ms, made.meta.labels["a"] = 5, "b"
    found = output.plain(made)
    assert found["state"] == "ready"
    assert found["role"] == ""
    assert found["meta"]["created_unix_ms"] == 5
    assert found["meta"]["labels"] == {"a": "b"}
    assert found["public_key_sha256"] == "01ff"
    assert found["network"] is None
