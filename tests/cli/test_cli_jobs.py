"""Jobs on the command line: how they are written, followed, begun by hand, and tasks that run once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cli.compose.problems import ComposeRefused
from cli.progress_plan import deploy_progress
from proto import control_pb2, host_pb2, objects_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer, stream_of
from tests.cli.test_cli_compose import service as read_service
from tests.cli.test_cli_rendering import PENDING, RUNNING, listing, service, task

Fairway = Callable[..., Ended]
JobRun = objects_pb2.JobRun
EXITED, FAILED = objects_pb2.TASK_STATE_EXITED, objects_pb2.TASK_STATE_FAILED


def job(*runs: JobRun, generation: int = 1, **fields: object) -> objects_pb2.Service:
    made = service("work", 3, generation, runs=runs, run_count=len(runs), **fields)
    made.spec.kind = objects_pb2.SERVICE_KIND_JOB
    return made


def run(number: int, outcome: JobRun.Outcome.ValueType = JobRun.OUTCOME_NONE, **fields: object) -> JobRun:
    fields = {"generation": 1, "wanted": 3, "started_unix_ms": 1_000, **fields}
    return JobRun(number=number, outcome=outcome, finished_unix_ms=13_000 if outcome else 0, **fields)  # type: ignore[arg-type]


def of_run(number: int, made: objects_pb2.Task) -> objects_pb2.Task:
    made.run, made.desired = number, objects_pb2.DESIRED_STATE_RUNNING
    return made


def test_a_job_is_read_with_its_settings() -> None:
    spec = read_service(
        "deploy: {mode: replicated-job, replicas: 3}\n"
        "x-fairway: {job: {parallelism: 2, deadline: 5m, keep: 4}, "
        "schedule: {cron: '*/5 * * * *', time_zone: Europe/Berlin, missed: run_once, overlap: replace}}"
    )
    assert (spec.kind, spec.replicas) == (objects_pb2.SERVICE_KIND_JOB, 3)
    assert (spec.job.parallelism, spec.job.deadline_ms, spec.job.keep) == (2, 300_000, 4)
    assert (spec.schedule.cron, spec.schedule.time_zone) == ("*/5 * * * *", "Europe/Berlin")
    assert spec.schedule.run_missed
    assert spec.schedule.overlap == objects_pb2.Schedule.OVERLAP_REPLACE
    assert (spec.restart.condition, spec.restart.max_attempts) == (objects_pb2.RestartPolicy.CONDITION_ON_FAILURE, 3)


@pytest.mark.parametrize(
    ("lines", "condition", "attempts"),
    [
        ("restart: 'no'", objects_pb2.RestartPolicy.CONDITION_NONE, 0),
        ("restart: on-failure", objects_pb2.RestartPolicy.CONDITION_ON_FAILURE, 0),
        ("restart: on-failure:7", objects_pb2.RestartPolicy.CONDITION_ON_FAILURE, 7),
    ],
)
def test_how_often_a_job_is_tried_again(lines: str, condition: int, attempts: int) -> None:
    spec = read_service(f"{lines}\ndeploy: {{mode: global-job}}")
    assert (spec.restart.condition, spec.restart.max_attempts, spec.replicas) == (condition, attempts, 0)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("x-fairway: {job: {parallelism: 2}}", "x-fairway.job is for jobs"),
        ("x-fairway: {schedule: {cron: '* * * * *'}}", "x-fairway.schedule is for jobs"),
        ("deploy: {mode: global-job, replicas: 2}", "has no meaning with a global mode"),
        ("deploy: {mode: replicated-job}\nrestart: always", "would run a job that is done again"),
        ("deploy: {mode: replicated-job, restart_policy: {condition: any}}", "would run a job that is done again"),
        ("deploy: {mode: replicated-job, update_config: {}}", "has no meaning for a job"),
        ("deploy: {mode: replicated-job}\nx-fairway: {schedule: {}}", "has no cron"),
        ("deploy: {mode: replicated-job}\nx-fairway: {schedule: {cron: 61 * * * *}}", "'61' cannot be the minute"),
        ("deploy: {mode: replicated-job}\nx-fairway: {schedule: {cron: 0 0 31 2 *}}", "there is no such day"),
        ("deploy: {mode: replicated-job}\nx-fairway: {job: {retries: 2}}", "deploy.restart_policy.max_attempts"),
    ],
)
def test_what_a_job_cannot_have_is_refused(lines: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        read_service(lines)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("made", "tasks", "mark", "text"),
    [
        (job(), [], "going", "not begun yet"),
        (job(run(1, JobRun.OUTCOME_SUCCEEDED), generation=2), [], "going", "not begun yet"),
        (job(run(1, succeeded=1)), [of_run(1, task("work", 2))], "going", "1/3 completed, 1 running"),
        (job(run(1, JobRun.OUTCOME_SUCCEEDED, succeeded=3)), [], "done", "3/3 completed"),
        (job(run(1, JobRun.OUTCOME_FAILED, message="work.2: exit code 1")), [], "failed", "0/3 completed, failed"),
    ],
)
def test_a_deploy_follows_a_job_to_its_end(
    made: objects_pb2.Service, tasks: list[objects_pb2.Task], mark: str, text: str
) -> None:
    (line,) = deploy_progress(listing([made], tasks)).lines
    assert (line.mark, line.text) == (mark, text)


def test_a_job_with_a_schedule_is_deployed_at_once() -> None:
    made = job()
    made.spec.schedule.cron = "0 3 * * *"
    (line,) = deploy_progress(listing([made], [])).lines
    assert line.mark == "done"
    assert line.text.startswith("0 3 * * * (UTC)")


def test_trigger_follows_the_run_that_it_began(server: ControlServer, fairway: Fairway) -> None:
    before = run(1, JobRun.OUTCOME_SUCCEEDED, succeeded=3)
    server.on("TriggerJob", control_pb2.TriggerJobReply(service=job(before, run(2)), run=2, revision=5))
    pending = of_run(2, task("work", 1, PENDING, message="no host fits"))
    going = listing([job(before, run(2, succeeded=1))], [pending])
    failed = listing([job(before, run(2, JobRun.OUTCOME_FAILED, message="work.1: exit code 3"))], [])
    for reply in (going, failed):
        reply.revision = 6
    server.on("WatchTasks", stream_of(going, failed))
    ended = fairway("trigger", "shop/work")
    assert ended.code == 7
    assert "Run 2 of shop/work begins." in ended.out
    assert "work.1 pending: no host fits" in ended.out
    assert "0/3 completed, failed; see: fairway logs shop/work" in ended.err
    assert fairway("trigger", "shop/work", "--detach").code == 0


def test_show_tells_the_runs(server: ControlServer, fairway: Fairway) -> None:
    made = job(run(1, JobRun.OUTCOME_FAILED, succeeded=2, message="work.3: exit code 1"))
    server.on("ListServices", control_pb2.ListServicesReply(services=[control_pb2.ServiceView(service=made)]))
    server.on("ListTasks", listing([made], []))
    shown = fairway("show", "work").out
    assert "run 1 failed after 12s, 2 of 3 completed: work.3: exit code 1" in shown
    assert "to complete 3 times" in shown


def script_run(server: ControlServer, end: objects_pb2.Task) -> None:
    one = service("web-run-x", 1)
    server.on("ListServices", control_pb2.ListServicesReply(services=[control_pb2.ServiceView(service=one)]))
    server.on("RunOnce", control_pb2.RunOnceReply(service=one, revision=4))
    running = listing([one], [task("web-run-x", 1, RUNNING)])
    done = listing([one], [end])
    for reply in (running, done):
        reply.revision = 5
    server.on("WatchTasks", stream_of(running, done))
    lines = [
        host_pb2.LogLine(unix_ns=1, text=b"hello"),
        host_pb2.LogLine(unix_ns=2, text=b"twice"),
        host_pb2.LogLine(unix_ns=2, text=b"twice"),
        host_pb2.LogLine(unix_ns=3, text=b"oh", standard_error=True),
    ]
    server.on("Logs", stream_of(host_pb2.LogChunk(task_id="t", lines=lines)))
    server.on("RemoveService", control_pb2.RemoveServiceReply())


def test_run_prints_what_the_task_writes_once_and_ends_as_it_does(server: ControlServer, fairway: Fairway) -> None:
    script_run(server, task("web-run-x", 1, FAILED, exit_code=7, message="exit code 7"))
    ended = fairway("run", "--env", "A=b", "--user", "5", "shop/web", "--", "sh", "-c", "exit 7")
    assert ended.code == 7
    assert (ended.out, ended.err) == ("hello\ntwice\ntwice\n", "oh\n")
    (asked,) = server.asked("RunOnce")
    assert (asked.service, list(asked.command.values)) == ("shop/web", ["sh", "-c", "exit 7"])
    assert (dict(asked.environment), asked.user) == ({"A": "b"}, "5")
    assert server.asked("RemoveService")[0].service == "shop/web-run-x"


def test_a_task_that_could_not_start_says_why(server: ControlServer, fairway: Fairway) -> None:
    script_run(server, task("web-run-x", 1, FAILED, message="no such program"))
    ended = fairway("run", "web")
    assert ended.code == 125
    assert "no such program" in ended.err


def test_a_run_with_input_attaches_to_its_task_and_ends_as_it_does(server: ControlServer) -> None:
    script_run(server, task("web-run-x", 1, RUNNING))
    cluster = objects_pb2.Cluster(feature_level=2)
    server.on("GetCluster", control_pb2.GetClusterReply(cluster=cluster))
    starts: list[host_pb2.ExecStart] = []

    def echo(requests: Iterator[host_pb2.ExecInput], context: Any) -> Iterator[host_pb2.ExecOutput]:
        for request in requests:
            if request.HasField("start"):
                starts.append(request.start)
            elif request.stdin:
                yield host_pb2.ExecOutput(stdout=request.stdin.upper())
            elif request.close_stdin:
                break
        yield host_pb2.ExecOutput(exit_code=9)

    server.on("Exec", echo)
    command = [sys.executable, "-m", "cli.main", "run", "-i", "shop/web", "--", "tr"]
    ended = subprocess.run(command, input=b"abc", capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (9, b"ABC")
    (asked,) = server.asked("RunOnce")
    assert (asked.attached, asked.stdin, asked.tty) == (True, True, False)
    (start,) = starts
    assert (start.attach, start.task_id, start.stdin) == (True, task("web-run-x", 1, RUNNING).meta.id, True)
    assert server.asked("RemoveService")[0].service == "shop/web-run-x"
    server.on("GetCluster", control_pb2.GetClusterReply(cluster=objects_pb2.Cluster(feature_level=1)))
    early = subprocess.run(command, input=b"", capture_output=True, timeout=60)
    assert early.returncode == 1
    assert b"not every host knows -i and -t" in early.stderr
    assert len(server.asked("RunOnce")) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-i", "--detach"), "--detach does not go with -i and -t"),
        (("-t", "--timeout", "3s"), "--timeout does not go with -i and -t"),
        (("-it",), "standard input is no terminal"),
    ],
)
def test_what_does_not_go_with_a_terminal_is_refused(fairway: Fairway, options: tuple[str, ...], words: str) -> None:
    ended = fairway("run", *options, "shop/web")
    assert ended.code == 2
    assert words in ended.err


def test_run_of_an_image_is_an_app_of_its_own(server: ControlServer, fairway: Fairway) -> None:
    server.on("DeployApp", control_pb2.DeployAppReply(revision=1))
    ended = fairway("run", "--detach", "tools:1", "--", "true")
    app, _, name = ended.out.strip().partition("/")
    assert app.startswith("run-")
    spec = server.asked("DeployApp")[-1].app.services[name]
    assert (spec.kind, spec.job.once, spec.container.image) == (objects_pb2.SERVICE_KIND_JOB, True, "tools:1")
    assert list(spec.container.command.values) == ["true"]
