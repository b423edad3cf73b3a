"""Commands from end to end against a scripted server: output, requests, exit codes."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto import control_pb2, host_pb2, objects_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer, stream_of
from tests.cli.test_cli_rendering import PENDING, listing, service, task

Fairway = Callable[..., Ended]


@pytest.fixture
def compose(tmp_path: Path) -> str:
    path = tmp_path / "compose.yaml"
    path.write_text("name: shop\nservices: {web: {image: 'web:1', deploy: {replicas: 2}}}\n")
    return str(path)


def ready() -> control_pb2.ListTasksReply:
    reply = listing([service("web", 2)], [task("web", 1, ready=True), task("web", 2, ready=True)])
    reply.revision = 9
    return reply


def script_deploy(server: ControlServer) -> None:
    change = control_pb2.ServiceChange(action=control_pb2.ServiceChange.CREATE, service="web", replicas_after=2)
    plan = control_pb2.PlanAppReply(changes=[change], volumes_created=["data"], warnings=["careful"])
    server.on("PlanApp", plan)
    server.on("DeployApp", control_pb2.DeployAppReply(plan=plan, revision=9))


def test_deploy_waits_until_everything_is_ready(server: ControlServer, fairway: Fairway, compose: str) -> None:
    script_deploy(server)
    stale = control_pb2.ListTasksReply(revision=8)
    waiting = listing([service("web", 2)], [task("web", 1, PENDING, message="no host has 64G")])
    waiting.revision = 9
    server.on("WatchTasks", stream_of(stale, waiting, ready()))
    ended = fairway("deploy", compose)
    assert ended.code == 0
    assert "web: web.1 pending: no host has 64G" in ended.out
    assert "web: 2/2 ready" in ended.out
    assert "Deployed shop in" in ended.out
    assert "warning: careful" in ended.err
    request = server.asked("DeployApp")[0]
    assert (request.app.name, len(request.request_id)) == ("shop", 26)


def test_deploy_goes_on_watching_when_the_leader_changes(server: ControlServer, fairway: Fairway, compose: str) -> None:
    script_deploy(server)
    calls = 0

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[control_pb2.ListTasksReply]:
        nonlocal calls
        calls += 1
        if calls == 1:
            yield listing([service("web", 2)], [])
            context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")
        yield ready()

    server.on("WatchTasks", watch)
    assert fairway("deploy", compose).code == 0
    assert calls == 2


def test_deploy_ends_with_4_when_it_takes_too_long(server: ControlServer, fairway: Fairway, compose: str) -> None:
    script_deploy(server)

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[control_pb2.ListTasksReply]:
        yield listing([service("web", 2)], [])
        while context.is_active():
            time.sleep(0.01)

    server.on("WatchTasks", watch)
    ended = fairway("deploy", compose, "--timeout", "300ms")
    assert ended.code == 4
    assert "it goes on in the cluster" in ended.err


def test_ctrl_c_detaches_from_a_deploy(server: ControlServer, compose: str) -> None:
    script_deploy(server)

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[control_pb2.ListTasksReply]:
        waiting = listing([service("web", 2)], [])
        waiting.revision = 9
        yield waiting
        while context.is_active():
            time.sleep(0.01)

    server.on("WatchTasks", watch)
    command = [sys.executable, "-m", "cli.main", "deploy", compose]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    killer = threading.Timer(60, child.kill)
    killer.start()
    try:
        assert child.stdout is not None
        while child.stdout.readline() not in (b"web: 0/2 ready\n", b""):
            pass
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
        assert (child.returncode, b"The deploy goes on" in errors) == (130, True)
    finally:
        killer.cancel()
        child.kill()
        child.wait()


def test_deploy_detached_returns_at_once(server: ControlServer, fairway: Fairway, compose: str) -> None:
    script_deploy(server)
    ended = fairway("deploy", "--detach", compose)
    assert (ended.code, server.asked("WatchTasks")) == (0, [])
    assert ended.out == "Deploying shop: services: 1 to create\n"


def test_plan(server: ControlServer, fairway: Fairway, compose: str) -> None:
    script_deploy(server)
    ended = fairway("plan", compose)
    assert ended.out.splitlines() == [
        "+ service web: 2 tasks",
        "+ volume data",
        "shop: services: 1 to create",
    ]


def test_a_bad_file_is_refused_before_anything_is_asked(
    server: ControlServer, fairway: Fairway, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("services:\n  web:\n    image: a\n    blkio_config: {}\n")
    ended = fairway("deploy", str(path))
    assert ended.code == 1
    assert f"{path}:4: services.web.blkio_config is not supported by Fairway" in ended.err
    assert server.requests == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, 1),
        (grpc.StatusCode.UNAVAILABLE, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 4),
        (grpc.StatusCode.INTERNAL, 1),
    ],
)
def test_refusals_are_sentences(server: ControlServer, fairway: Fairway, code: grpc.StatusCode, expected: int) -> None:
    server.refuse("ListApps", code, "this host has lost the majority")
    ended = fairway("ls")
    assert ended.code == expected
    assert ended.err.startswith("fairway: list apps: ")
    assert "Traceback" not in ended.err


def test_no_daemon_is_said_with_what_to_do(fairway: Fairway, tmp_path: Path) -> None:
    ended = fairway("--socket", str(tmp_path / "none.sock"), "ls")
    assert ended.code == 3
    assert "no fairwayd listens on" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [(), ("nope",), ("deploy",), ("scale", "web"), ("node",), ("exec", "web"), ("logs", "--tail", "x", "w")],
)
def test_wrong_usage_ends_with_2(server: ControlServer, fairway: Fairway, arguments: tuple[str, ...]) -> None:
    assert fairway(*arguments).code == 2


def test_every_command_has_help_with_examples(fairway: Fairway) -> None:
    from cli.catalogue import COMMANDS

    for command in COMMANDS:
        if command.path != "lab":
            ended = fairway(*command.path.split(), "--help")
            assert ended.code == 0
            assert "examples:\n  " in ended.out


def test_ls_and_ps(server: ControlServer, fairway: Fairway) -> None:
    app = control_pb2.AppView(service_count=1, task_running_count=2, task_wanted_count=2)
    app.app.meta.name = "shop"
    server.on("ListApps", control_pb2.ListAppsReply(apps=[app]))
    reply = ready()
    reply.nodes.add(meta=objects_pb2.Meta(id="n1", name="host-1"))
    server.on("ListTasks", reply)
    assert fairway("ls", "-q").out == "shop\n"
    lines = fairway("ps", "shop").out.splitlines()
    assert lines[0].split() == ["TASK", "NODE", "STATE", "READY", "AGE", "MESSAGE"]
    assert lines[1].split()[:4] == ["shop/web.1", "host-1", "running", "yes"]
    assert server.asked("ListTasks")[-1].app == "shop"
    fairway("ps", "other/web", "-a")
    assert (server.asked("ListTasks")[-1].service, server.asked("ListTasks")[-1].all) == ("web", True)
    found = json.loads(fairway("ps", "-o", "json").out)
    assert found[0]["status"]["state"] == "running"


def test_scale_and_rm(server: ControlServer, fairway: Fairway) -> None:
    server.on("ScaleService", control_pb2.ScaleServiceReply(service=service("web", 3)))
    assert fairway("scale", "shop/web=3").out == "shop/web: 3 tasks wanted\n"
    server.on("RemoveApp", control_pb2.RemoveAppReply(services=["web"]))
    server.on("RemoveService", control_pb2.RemoveServiceReply())
    assert fairway("rm", "shop", "--volumes").code == 0
    assert server.asked("RemoveApp")[0].volumes
    assert fairway("rm", "shop/web").code == 0


def test_drain_waits_until_the_node_is_empty(server: ControlServer, fairway: Fairway) -> None:
    node = objects_pb2.Node(meta=objects_pb2.Meta(id="n1", name="host-1"))
    server.on("UpdateNode", control_pb2.UpdateNodeReply(node=node))
    server.on("WatchTasks", stream_of(ready(), control_pb2.ListTasksReply()))
    ended = fairway("node", "drain", "host-1")
    assert ended.code == 0
    assert "shop/web: 2 tasks left on host-1" in ended.out
    assert "Drained host-1" in ended.out
    assert server.asked("UpdateNode")[0].availability == objects_pb2.AVAILABILITY_DRAINING


def test_init_stores_the_context_and_says_what_to_do_next(
    server: ControlServer, fairway: Fairway, tmp_path: Path
) -> None:
    server.on(
        "Initialise",
        control_pb2.InitialiseReply(
            cluster_id="c",
            operator_certificate_pem=b"cert",
            operator_private_key_pem=b"key",
            ca_certificate_pem=b"ca",
            address="192.0.2.1:7443",
            voter_token="VOTER",
            worker_token="WORKER",
        ),
    )
    ended = fairway("init", "--name", "prod", "--label", "disk=ssd")
    assert "fairway join 192.0.2.1 --token VOTER" in ended.out
    key = tmp_path / "config" / "prod" / "key.pem"
    assert key.read_bytes() == b"key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert dict(server.asked("Initialise")[0].labels) == {"disk": "ssd"}


def test_logs_go_where_they_were_written(server: ControlServer, fairway: Fairway) -> None:
    lines = [
        host_pb2.LogLine(unix_ns=1, text=b"out"),
        host_pb2.LogLine(unix_ns=2, text=b"bad\xff", standard_error=True),
    ]
    server.on("Logs", stream_of(host_pb2.LogChunk(task_id="abcd", task_name="web.1", lines=lines)))
    ended = fairway("logs", "--tail", "5", "web.1")
    assert ended.out == "out\n"
    assert "web.1 | out\n" in fairway("logs", "shop/web").out
    assert server.asked("Logs")[0].tail_lines == 5


def test_logs_of_several_are_told_apart_and_bounded(server: ControlServer, fairway: Fairway) -> None:
    line = host_pb2.LogLine(unix_ns=10**18, text=b"out")
    server.on("Logs", stream_of(host_pb2.LogChunk(task_id="abcd", app="shop", task_name="web.1", lines=[line])))
    ended = fairway("logs", "--stderr", "--until", "2026-01-31T12:00:00+00:00", "--since", "2026-01-31", "web", "db")
    assert ended.out == "shop/web.1 | out\n"
    asked = server.asked("Logs")[0]
    assert (asked.target, list(asked.targets), asked.stream) == ("web", ["db"], host_pb2.LOG_STREAM_STDERR)
    assert asked.until_unix_ms == 1_769_860_800_000
    record = json.loads(fairway("logs", "-o", "json", "web").out)
    assert (record["app"], record["task"], record["stream"], record["text"]) == ("shop", "web.1", "stdout", "out")
    early = fairway("logs", "--since", "1m", "--until", "2m", "web")
    assert (early.code, "before --since" in early.err) == (2, True)


def test_images_stream_in_chunks_and_a_token_is_shown(server: ControlServer, fairway: Fairway, tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(b"x" * 1_200_000)
    received: list[control_pb2.LoadImageRequest] = []

    def load(requests: Iterator[control_pb2.LoadImageRequest], context: object) -> control_pb2.LoadImageReply:
        received.extend(requests)
        return control_pb2.LoadImageReply(images=[objects_pb2.Image(meta=objects_pb2.Meta(name="web:1"))])

    server.on("LoadImage", load)
    ended = fairway("image", "load", str(archive), "--name", "web:1")
    assert ended.out.startswith("Loaded web:1")
    assert b"".join(each.data for each in received) == archive.read_bytes()
    assert [each.name for each in received] == ["web:1", "", ""]
    server.on("CreateToken", control_pb2.CreateTokenReply(text="TOKEN"))
    assert fairway("token", "create", "--role", "worker", "--valid", "1h", "-q").out == "TOKEN\n"
    assert server.asked("CreateToken")[0].valid_ms == 3_600_000


def test_status_of_a_host_without_a_cluster(server: ControlServer, fairway: Fairway) -> None:
    server.on("Status", control_pb2.LocalStatusReply(phase="new"))
    assert "fairway init" in fairway("status").out


@pytest.mark.parametrize(
    ("code", "exit_code"), [(grpc.StatusCode.UNAVAILABLE, 3), (grpc.StatusCode.PERMISSION_DENIED, 1)]
)
def test_a_host_says_how_it_is_where_nobody_speaks_for_the_cluster(
    server: ControlServer, fairway: Fairway, code: grpc.StatusCode, exit_code: int
) -> None:
    server.on("Status", control_pb2.LocalStatusReply(phase="member", node_name="host-4", raft_role="none"))
    server.refuse("GetCluster", code, "ask a voter")
    ended = fairway("status", "-o", "json")
    assert (ended.code, json.loads(ended.out)["host"]["node_name"]) == (exit_code, "host-4")
    assert "ask a voter" in ended.err
    assert "host-4, worker" in fairway("status").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_command(fairway: Fairway, shell: str) -> None:
    found = fairway("completion", shell).out
    assert all(word in found for word in ("deploy", "drain", "detach"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=found, text=True, check=True)


def test_completion_asks_the_cluster_for_names(server: ControlServer, fairway: Fairway, tmp_path: Path) -> None:
    services = [objects_pb2.Service(app=app, meta=objects_pb2.Meta(name="web")) for app in ("shop", "blog")]
    services.append(objects_pb2.Service(app="shop", meta=objects_pb2.Meta(name="db")))
    tasks = [objects_pb2.Task(app="shop", meta=objects_pb2.Meta(name="db.1"))]
    server.on("ListTasks", control_pb2.ListTasksReply(services=services, tasks=tasks))
    assert fairway("__complete", "SERVICE").out.split() == ["blog/web", "db", "shop/db", "shop/web"]
    found = fairway("__complete", "TASK|SERVICE|APP").out.split()
    assert {"db.1", "shop/db.1", "shop", "blog/web"} <= set(found)
    assert "web" not in found
    assert fairway("--socket", str(tmp_path / "none"), "__complete", "TASK").out == ""
    script = tmp_path / "script"
    script.write_text(fairway("completion", "bash").out)
    typed = """
        fairway() { echo "shop/db.1 $*"; }
        compopt() { :; }
        source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fairway; echo "${COMPREPLY[@]}" """
    for words, offered in (
        (["logs", "sh"], "shop/db.1"),
        (["--context", "c", "exec", "-i", "c"], "c"),  # what was asked with the context
        (["exec", "web", "--", "sh"], ""),
        (["node", "drain", "NO"], "NODE"),
    ):
        done = subprocess.run(
            ["bash", "-c", typed, "bash", str(script), "fairway", *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == offered, words


def test_a_command_that_is_mistyped_is_guessed(fairway: Fairway) -> None:
    for typed, guess in ((("depoly",), "did you mean deploy?"), (("node", "drian", "x"), "did you mean drain?")):
        ended = fairway(*typed)
        assert (ended.code, guess in ended.err) == (2, True)
    assert "there is no command 'xyzzy'\nSee" in fairway("xyzzy").err


def test_help_is_quick() -> None:
    """It loads nothing that takes long; in seconds of CPU, which a busy machine stretches to twice as many."""
    command = [sys.executable, "-X", "importtime", "-m", "cli.main", "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert {"cli", "argparse"} <= loaded
    assert not loaded & {"asyncio", "cryptography", "google", "grpc", "proto", "ssl", "trio", "yaml"}
    assert min(_cpu_seconds_of_help() for _ in range(5)) < 0.3


def _cpu_seconds_of_help() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cli.main", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
