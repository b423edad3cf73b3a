"""Commands that lay hands on what runs, beside a scripted server."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc

from proto import control_pb2, objects_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer, stream_of
from tests.cli.test_cli_rendering import listing, service, task

Fairway = Callable[..., Ended]


def test_a_restarted_task_is_followed_until_another_is_ready(server: ControlServer, fairway: Fairway) -> None:
    reply = control_pb2.RestartReply(
        service=service("web", 1), message="shop/web.1: it is replaced", revision=7, task_name="web.1"
    )
    server.on("RestartTasks", reply)
    old, new = task("web", 1, ready=True), task("web", 1, ready=True)
    old.desired = objects_pb2.DESIRED_STATE_STOPPED
    new.desired = objects_pb2.DESIRED_STATE_RUNNING
    listings = [listing([], [old]), listing([], [old, new])]
    for number, each in enumerate(listings):
        each.revision = 7 + number
    server.on("WatchTasks", stream_of(*listings))
    ended = fairway("restart", "shop/web.1")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("shop/web.1: it is replaced\nRestarted in ")
    asked = server.asked("RestartTasks")[0]
    assert asked.target == "shop/web.1" and asked.request_id
    assert fairway("restart", "shop/web.1", "--detach").out == "shop/web.1: it is replaced\n"


def test_stop_says_what_follows(server: ControlServer, fairway: Fairway) -> None:
    server.on("StopTask", control_pb2.StopTaskReply(task=task("web", 1), message="it has stopped; another one follows"))
    assert fairway("stop", "web.1", "-t", "2s").out == "it has stopped; another one follows\n"
    asked = server.asked("StopTask")[0]
    assert (asked.target, asked.grace_ms) == ("web.1", 2_000)
    assert json.loads(fairway("stop", "web.1", "-o", "json").out)["meta"]["name"] == "web.1"
    assert fairway("stop", "web.1", "-t", "soon").code == 2


def test_signal_names_who_got_it(server: ControlServer, fairway: Fairway) -> None:
    server.on("SignalTasks", control_pb2.SignalTasksReply(tasks=["shop/web.1", "shop/web.2"]))
    assert fairway("signal", "web", "-s", "HUP").out == "shop/web.1\nshop/web.2\n"
    assert server.asked("SignalTasks")[0].signal == "HUP"
    server.refuse("SignalTasks", grpc.StatusCode.INVALID_ARGUMENT, "there is no signal 'HUPP'")
    ended = fairway("signal", "web", "-s", "HUPP")
    assert (ended.code, ended.err) == (1, "fairway: signal web: there is no signal 'HUPP'\n")
    assert fairway("signal", "web").code == 2


def test_inspect_prints_what_is_set_and_json_prints_all(server: ControlServer, fairway: Fairway) -> None:
    server.on("Inspect", control_pb2.InspectReply(services=[service("web", 3)]))
    lines = fairway("inspect", "service", "web").out.splitlines()
    assert "meta:" in lines and "  name: web" in lines and "  replicas: 3" in lines
    assert not any(line.endswith((":", ": None", ": False")) and not line.strip() for line in lines)
    found = json.loads(fairway("inspect", "service", "web", "-o", "json").out)
    assert found[0]["spec"]["replicas"] == 3 and found[0]["vip"] == ""


def usage(cpu_ns: int, sampled_ns: int) -> control_pb2.ReadUsageReply:
    reply = control_pb2.ReadUsageReply()
    reply.tasks.add(
        task_id="id1",
        name="shop/web.1",
        node="host-1",
        sampled_ns=sampled_ns,
        cpu_ns=cpu_ns,
        memory_bytes=32 << 20,
        memory_limit_bytes=64 << 20,
        processes=3,
        received_bytes=1500,
        sent_bytes=20,
    )
    return reply


def test_stats_compare_two_looks(server: ControlServer, fairway: Fairway) -> None:
    second = usage(cpu_ns=1_250_000_000, sampled_ns=11_000_000_000)
    second.tasks.add(task_id="id2", name="shop/web.2", node="host-2", sampled_ns=1)  # was not there the first time
    second.silent.append("host-3: it is down")
    looks = [usage(cpu_ns=1_000_000_000, sampled_ns=10_000_000_000), second] * 2
    server.on("ReadUsage", lambda request, context: looks.pop(0))
    ended = fairway("stats", "shop", "--no-stream")
    assert ended.code == 0 and "host-3: it is down" in ended.err
    heading, first, other = ended.out.splitlines()
    assert heading.split()[:2] == ["TASK", "NODE"]
    assert first.split() == ["shop/web.1", "host-1", "25.0", "32M", "64M", "50.0", "1.5K", "20B", "0B", "0B", "3"]
    assert other.split()[2] == "-"
    assert list(server.asked("ReadUsage")[0].targets) == ["shop"]
    found = json.loads(fairway("stats", "--no-stream", "-o", "json").out)
    assert (found[0]["cpu_percent"], found[1]["cpu_percent"]) == (25.0, None)


def test_top_lists_processes(server: ControlServer, fairway: Fairway) -> None:
    reply = control_pb2.ListProcessesReply(name="shop/web.1", more=True)
    reply.processes.add(
        id=7, parent=1, host_id=4711, user="www", state="S", cpu_millis=125, memory_bytes=2 << 20, age_ms=65_000
    )
    reply.processes[0].command = "nginx: worker"
    server.on("ListProcesses", reply)
    ended = fairway("top", "web")
    assert ended.out.splitlines()[1].split() == ["7", "www", "S", "12.5", "2M", "1m", "nginx:", "worker"]
    assert "more processes" in ended.err
    assert fairway("top", "web", "-o", "wide").out.splitlines()[1].split()[:3] == ["7", "4711", "1"]
    assert json.loads(fairway("top", "web", "-o", "json").out)[0]["command"] == "nginx: worker"
