"""Rollouts at the command line: what files say of them, and how commands about them end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.commands.service import history_rows
from cli.compose import project
from cli.compose.problems import ComposeRefused
from cli.compose.rollout import ratio_millionths, share_millionths
from cli.failure import EXIT_OK, EXIT_PAUSED, EXIT_ROLLED_BACK, EXIT_TASKS_FAILED
from cli.progress_plan import deploy_progress
from proto import control_pb2, objects_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer, stream_of
from tests.cli.test_cli_rendering import FAILED, listing, service, task

Rollout = objects_pb2.Rollout


def read(tmp_path: Path, deploy: str = "{}", extension: str = "{}") -> objects_pb2.ServiceSpec:
    path = tmp_path / "compose.yaml"
    path.write_text(
        f"name: shop\nservices:\n  web:\n    image: web:1\n    deploy: {deploy}\n    x-fairway: {extension}\n"
    )
    return project.load([path], {}).spec.services["web"]


def test_update_and_rollback_config_with_all_their_fields(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        "{update_config: {parallelism: 2, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.25,"
        " order: stop-first}, rollback_config: {failure_action: continue, parallelism: 0}}",
    )
    assert spec.update == objects_pb2.UpdateConfig(
        parallelism=2,
        delay_ms=10_000,
        failure_action=objects_pb2.FAILURE_ACTION_ROLLBACK,
        monitor_ms=60_000,
        max_failure_millionths=250_000,
        order=objects_pb2.UPDATE_ORDER_STOP_FIRST,
    )
    assert spec.rollback == objects_pb2.UpdateConfig(failure_action=objects_pb2.FAILURE_ACTION_CONTINUE)
    assert not read(tmp_path).HasField("update")
    assert read(tmp_path, "{update_config: {}}").update == objects_pb2.UpdateConfig(parallelism=1)


def test_strategies(tmp_path: Path) -> None:
    steps = "[{share: 12.5%, wait: 5m}, {tasks: 3, wait: by hand}, {share: 50%}]"
    rollout = read(tmp_path, extension=f"{{rollout: {{strategy: canary, steps: {steps}}}}}").rollout
    assert [(step.share_millionths, step.tasks, step.wait_ms) for step in rollout.steps] == [
        (125_000, 0, 300_000),
        (0, 3, 0),
        (500_000, 0, 0),
    ]
    assert read(tmp_path, extension="{rollout: {strategy: blue-green}}").rollout.keep_ms == 600_000
    assert read(tmp_path, extension="{rollout: {strategy: blue-green, keep: 0s}}").rollout.keep_ms == 0


@pytest.mark.parametrize(
    ("deploy", "extension", "words"),
    [
        ("{update_config: {parallel: 2}}", "{}", "update_config.parallel is not supported"),
        ("{update_config: {max_failure_ratio: 2}}", "{}", "not a ratio between 0 and 1"),
        ("{update_config: {failure_action: stop}}", "{}", "'stop'"),
        ("{rollback_config: {failure_action: rollback}}", "{}", "'rollback'"),
        ("{}", "{rollout: {strategy: canary}}", "no steps"),
        ("{}", "{rollout: {strategy: canary, steps: [{wait: 5m}]}}", "either share or tasks"),
        ("{}", "{rollout: {strategy: canary, steps: [{share: 10}]}}", "not a share"),
        ("{}", "{rollout: {steps: [{tasks: 1}]}}", "strategy: canary only"),
        ("{}", "{rollout: {strategy: canary, steps: [{tasks: 1}], keep: 5m}}", "strategy: blue-green only"),
    ],
)
def test_what_is_refused(tmp_path: Path, deploy: str, extension: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        read(tmp_path, deploy, extension)
    assert words in str(refused.value) and "compose.yaml:" in str(refused.value)


def test_shares_and_ratios() -> None:
    assert (share_millionths("100%"), share_millionths("0.0001%")) == (1_000_000, 1)
    assert (ratio_millionths("0"), ratio_millionths("1")) == (0, 1_000_000)
    for text in ("0%", "101%", "ten%", "5"):
        with pytest.raises(ValueError):
            share_millionths(text)


def rolled(state: Rollout.State.ValueType, message: str = "", back_to: int = 0) -> control_pb2.ListTasksReply:
    """A service of two ready tasks whose rollout is at `state`."""
    web = service("web", 2)
    web.rollout.CopyFrom(Rollout(state=state, generation=web.generation, message=message, back_to=back_to))
    tasks = [task("web", 1, ready=True), task("web", 2, ready=True)]
    reply = listing([web], tasks)
    reply.revision = 9
    return reply


@pytest.mark.parametrize(
    ("state", "back_to", "mark"),
    [
        (Rollout.STATE_GOING, 0, "going"),
        (Rollout.STATE_GOING, 1, "going"),
        (Rollout.STATE_PAUSED, 0, "paused"),
        (Rollout.STATE_WAITING, 0, "paused"),
        (Rollout.STATE_FAILED, 0, "failed"),
        (Rollout.STATE_DONE, 0, "done"),
        (Rollout.STATE_DONE, 1, "back"),
    ],
)
def test_a_rollout_says_whether_a_service_is_done(state: Rollout.State.ValueType, back_to: int, mark: str) -> None:
    assert deploy_progress(rolled(state, back_to=back_to), {"web"}).lines[0].mark == mark


def test_a_rollback_is_over_when_what_was_new_has_ended() -> None:
    reply = rolled(Rollout.STATE_DONE, "1 of 2 new tasks failed", back_to=1)
    reply.tasks.append(task("web", 2, ready=True, generation=reply.services[0].generation + 1))
    assert deploy_progress(reply, {"web"}).lines[0].mark == "going"
    reply.tasks[-1].status.state = objects_pb2.TASK_STATE_EXITED
    assert deploy_progress(reply, {"web"}).lines[0].mark == "back"


def test_a_rollback_of_long_ago_is_nobodys_failure() -> None:
    assert deploy_progress(rolled(Rollout.STATE_DONE, back_to=1)).done


@pytest.mark.parametrize(
    ("state", "back_to", "code", "words"),
    [
        (Rollout.STATE_DONE, 0, EXIT_OK, ""),
        (Rollout.STATE_FAILED, 0, EXIT_TASKS_FAILED, "deploy shop: web: 1 of 2 new tasks failed"),
        (Rollout.STATE_DONE, 1, EXIT_ROLLED_BACK, "web was rolled back: 1 of 2 new tasks failed"),
        (Rollout.STATE_WAITING, 0, EXIT_PAUSED, "web: 1 of 2 new tasks failed"),
    ],
)
def test_a_deploy_ends_with_what_became_of_it(
    server: ControlServer,
    fairway: Callable[..., Ended],
    tmp_path: Path,
    state: Rollout.State.ValueType,
    back_to: int,
    code: int,
    words: str,
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("name: shop\nservices: {web: {image: 'web:1', deploy: {replicas: 2}}}\n")
    change = control_pb2.ServiceChange(action=control_pb2.ServiceChange.UPDATE, service="web")
    server.on("DeployApp", control_pb2.DeployAppReply(plan=control_pb2.PlanAppReply(changes=[change]), revision=9))
    end = rolled(state, "1 of 2 new tasks failed", back_to)
    server.on("WatchTasks", stream_of(rolled(Rollout.STATE_GOING), end))
    ended = fairway("deploy", str(path))
    assert ended.code == code
    assert words in ended.err


def test_tasks_that_end_for_good_are_a_failure_of_their_own(
    server: ControlServer, fairway: Callable[..., Ended], tmp_path: Path
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("name: shop\nservices: {web: {image: 'web:1'}}\n")
    server.on("DeployApp", control_pb2.DeployAppReply(revision=9))
    never = task("web", 1, FAILED)
    never.spec.restart.condition = objects_pb2.RestartPolicy.CONDITION_NONE
    reply = listing([service("web", 1)], [never])
    reply.revision = 9
    server.on("WatchTasks", stream_of(reply))
    assert fairway("deploy", str(path)).code == EXIT_TASKS_FAILED


def test_commands_about_a_rollout_say_what_is_asked_and_wait(
    server: ControlServer, fairway: Callable[..., Ended]
) -> None:
    web = service("web", 2)
    web.app = "shop"
    server.on("SteerRollout", control_pb2.SteerRolloutReply(service=web, message="said", revision=9))
    server.on("WatchTasks", stream_of(rolled(Rollout.STATE_DONE, back_to=3)))
    request = control_pb2.SteerRolloutRequest
    for words, action in (
        (("rollback", "shop/web", "--to", "3"), request.ROLL_BACK),
        (("abort", "shop/web"), request.ABORT),
        (("pause", "shop/web"), request.PAUSE),
        (("promote", "shop/web", "--all", "--detach"), request.PROMOTE),
    ):
        ended = fairway("service", *words)
        assert (ended.code, server.asked("SteerRollout")[-1].action) == (EXIT_OK, action)
        assert "said" in ended.out
    assert server.asked("SteerRollout")[0].to_revision == 3
    assert server.asked("SteerRollout")[-1].all_steps
    assert fairway("service", "resume", "shop/web").code == EXIT_ROLLED_BACK  # an older one is not what was resumed
    assert fairway("service", "rollback", "shop/web", "--to", "x").code != EXIT_OK


def test_history_lists_what_was_and_what_is() -> None:
    web = service("web", 2)
    web.generation = 3
    web.meta.created_unix_ms = 1
    web.spec.container.image = "web:1"
    web.revisions.add(generation=1, started_unix_ms=1).spec.container.image = "web:1"
    web.revisions.add(generation=2, started_unix_ms=2, failed=True, reason="image web:1 -> web:2")
    web.rollout.CopyFrom(Rollout(state=Rollout.STATE_GOING, generation=3, back_to=1, reason="back to revision 1"))
    rows = history_rows(web, 60_001)
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("1", "replaced", "first"),
        ("2", "unfinished", "image web:1 -> web:2"),
        ("3", "rolling back", "back to revision 1"),
    ]
