"""Sessions with tasks, at a terminal and through pipes: they are told of everything, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.cluster import Cluster, run_in_task
from tests.system.terminal import Client, Pipe, Terminal

Deploy = Callable[[str], str]
BOX = """
services:
  box:
    image: static-web:1
    expose: ["7778"]
    command: ["sh", "-c", "echo up; echo oh >&2; nc -ll -p 7778 -e cat & while :; do sleep 0.3; echo tick; done"]
    init: true
    stop_grace_period: 1s
  shell:
    image: static-web:1
    command: ["sh"]
    tty: true
    stdin_open: true
    stop_grace_period: 100ms
"""
ENDED_SECONDS_MAX = 60
POOLS = ("Trio thread", "event_engine")  # of trio and gRPC, as large as they were busy
IMAGE = ("--image", "static-web:1")


@pytest.fixture(scope="module")
def app(cluster: Cluster) -> Iterator[str]:
    cluster.deploy(f"name: sessions{BOX}")
    yield "sessions"
    cluster.remove("sessions")


def host_of(cluster: Cluster, task: str) -> str:
    return cluster.node_names()[cluster.json("inspect", "task", task)[0]["node_id"]]


def test_exec_at_a_terminal_and_through_a_pipe(cluster: Cluster, app: str) -> None:
    terminal = Terminal(cluster, "exec", "-it", f"{app}/box", "--", "sh")
    pipe = Pipe(
        cluster, "exec", f"{app}/box", "--", "sh", "-c", "trap 'exit 44' TERM; echo up; while :; do sleep 0.05; done"
    )
    try:
        terminal.expect("# ")
        terminal.write("tty; stty size; echo $TERM\n")
        terminal.expect("/dev/pts/")
        terminal.expect("25 90")
        terminal.expect("xterm")
        terminal.resize(101, 33)
        os.killpg(terminal.child.pid, signal.SIGWINCH)
        terminal.write("until stty size | grep '33 1''01'; do sleep 0.05; done\n")
        terminal.expect("33 101")
        for key, name, code in (("\x03", "interrupted", 130), ("\x1c", "quit", 131)):
            terminal.write(f"sh -c 'echo {name[0]}\"\"{name[1:]} begins; exec sleep 1000'\n")
            terminal.expect(f"{name} begins")
            terminal.write(key)
            terminal.write(f"echo {name} with $?\n")
            terminal.expect(f"{name} with {code}")
        terminal.write("exit 9\n")
        assert terminal.child.wait(timeout=ENDED_SECONDS_MAX) == 9
        pipe.expect("up")
        pipe.child.terminate()
        assert pipe.child.wait(timeout=ENDED_SECONDS_MAX) == 44
    finally:
        terminal.close()
        pipe.close()


def test_several_look_on_at_a_task_and_leave_it(cluster: Cluster, app: str) -> None:
    shell = f"{app}/shell.1"
    before = cluster.json("inspect", "task", shell)[0]["meta"]["id"]
    clients: list[Client] = [Terminal(cluster, "attach", shell), Pipe(cluster, "attach", shell, host="host-3")]
    try:
        clients[0].expect("# ")
        while b"# " not in clients[1].seen:  # a pipe has no size to be drawn anew for: it sees what comes
            clients[0].write("\n")
            assert clients[1].look(0.5) != b"", clients[1].seen
        clients[1].expect("# ")
        clients[0].write("until stty size | grep '25 9''0'; do sleep 0.05; done; echo fr''om the first\n")
        clients[1].write("echo fr''om the second\n")
        for client in clients:
            client.expect("25 90")
            client.expect("from the first")
            client.expect("from the second")
        clients[0].write("\x10\x11")
        clients[0].expect(f"Left {shell}, which goes on.")
        assert clients[0].child.wait(timeout=ENDED_SECONDS_MAX) == 0
        clients[1].write("exit 6\n")
        assert clients[1].child.wait(timeout=ENDED_SECONDS_MAX) == 6
    finally:
        for client in clients:
            client.close()
    cluster.wait(
        lambda: (
            [task["meta"]["id"] for task in cluster.tasks(f"{app}/shell") if task["status"]["ready"]] != [before]
            and cluster.ready(f"{app}/shell", 1, "host-1")
        ),
        "its restart policy has it followed by another",
    )


def test_a_toolbox_beside_a_task_sees_its_network_processes_and_files(cluster: Cluster, app: str) -> None:
    box = f"{app}/box.1"
    run_in_task(cluster, box, "sh", "-c", "echo hello > /tmp/mark")
    tasks = cluster.json("ps", app)
    script = "cat /proc/1/root/tmp/mark; netstat -tln; ps; cat /tmp/mark 2>&1; exit 5"
    done = cluster.fairway("debug", *IMAGE, box, "--", "sh", "-c", script, host="host-3", ok=False)
    assert done.returncode == 5, done.stderr
    assert done.stdout.startswith("hello\n")
    assert ":7778 " in done.stdout
    assert "nc -ll -p 7778" in done.stdout
    assert "can't open '/tmp/mark'" in done.stdout
    missing = cluster.fairway("debug", *IMAGE, box, "--", "no-such-program", ok=False)
    assert missing.returncode == 127
    assert [task["meta"]["id"] for task in cluster.json("ps", app)] == [task["meta"]["id"] for task in tasks]


def test_logs_are_chosen_by_task_stream_and_time(cluster: Cluster, app: str) -> None:
    cluster.wait(
        lambda: cluster.fairway("logs", "--stderr", f"{app}/box").stderr == "box.1 | oh\n", "what it says to stderr"
    )

    def ticked_twice() -> bool:
        asked = ("--stdout", "--tail", "2", f"{app}/box.1", f"{app}/shell")
        return cluster.fairway("logs", *asked, host="host-3").stdout.count(f"{app}/box.1 | tick\n") == 2

    cluster.wait(ticked_twice, "the last two lines")
    lines: list[str] = []

    def both_said_something() -> bool:
        lines[:] = cluster.fairway("logs", "-o", "json", app).stdout.splitlines()
        return {'"box.1"', '"shell.1"'} <= {word.strip(",") for line in lines for word in line.split()}

    cluster.wait(both_said_something, "lines of both")
    stamps = [int(line.split('"unix_ns": ')[1].split(",")[0]) for line in lines]
    assert stamps == sorted(stamps)
    first = cluster.fairway("logs", "--until", "10m", "--tail", "5", f"{app}/box").stdout
    assert first == ""


def test_clients_that_are_killed_leave_nothing(cluster: Cluster, app: str, tmp_path: Path) -> None:
    box, shell = f"{app}/box.1", f"{app}/shell.1"
    there = host_of(cluster, box)
    elsewhere = next(name for name in cluster.lab.hosts() if name != there)
    mark = str(random.randrange(10_000, 99_999))
    sleeping = ["sh", "-c", f"echo going; sleep 9{mark} & sleep 9{mark}; true"]
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 30)
    for host in (there, elsewhere):  # whoever has asked before keeps connections between hosts
        cluster.json("top", box, host=host)
        cluster.json("top", shell, host=host)
    before = [held(cluster, host) for host in cluster.lab.hosts()]
    clients: list[Client] = []

    def begin(*arguments: str) -> None:
        """At a terminal through one host, through pipes through the other."""
        hosts = [there, elsewhere] if len(clients) % 4 else [elsewhere, there]
        clients.extend([Terminal(cluster, *arguments, host=hosts[0]), Pipe(cluster, *arguments, host=hosts[1])])

    with contextlib.ExitStack() as stack:
        stack.callback(close_all, clients)
        begin("exec", "-i", box, "--", *sleeping)
        begin("debug", "-i", *IMAGE, box, "--", *sleeping)
        begin("logs", "-f", box)
        begin("attach", shell)
        begin("port-forward", box, ":7778")
        for client in clients[:4]:
            client.expect("going")
        for client in clients[4:6]:
            client.expect("tick")
        for client in clients[6:8]:
            client.write("echo he''re\n")
            client.expect("here")
        for client in clients[8:10]:
            client.expect(" -> ")
            port = int(client.seen.split(b" -> ")[0].rpartition(b":")[2])
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        # Through a pipe: see test_hands.py.
        clients.append(Terminal(cluster, "cp", "-q", str(tmp_path / "large"), f"{box}:/tmp", host=elsewhere))
        cluster.wait(lambda: ".fairway-" in run_in_task(cluster, box, "ls", "-A", "/tmp"), "the copy goes on")
        cluster.wait(lambda: len(processes_with(f"9{mark}")) >= 4, "what they started runs")
        for client in clients:
            client.child.kill()
        cluster.wait(lambda: not processes_with(f"9{mark}"), "nothing that they started runs")
        cluster.wait(lambda: ".fairway-" not in run_in_task(cluster, box, "ls", "-A", "/tmp"), "no half file is left")
        for host, once in zip(cluster.lab.hosts(), before, strict=True):
            cluster.wait(
                lambda host=host, once=once: is_within(held(cluster, host), once),  # type: ignore[misc]
                f"{host} holds no more than before: {once}",
            )


def held(cluster: Cluster, host: str) -> dict[str, int]:
    """What fairwayd of a host holds: descriptors but those of logs, threads but those that wait for any work, and what
    it has made."""
    process = Path(f"/proc/{cluster.lab.process_ids(host)['fairwayd']}")
    descriptors = threads = 0
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            descriptors += not str(descriptor.readlink()).startswith("/var/log/fairway/")
    for thread in (process / "task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            threads += not (thread / "comm").read_text().startswith(POOLS)
    made = "ls /run/fairway/containers/exec /run/fairway/containers/io /run/fairway-runc/*; true"
    return {
        "descriptors": descriptors,
        "threads": threads,
        "files": len(cluster.lab.run_in(host, ["sh", "-c", made], check=False).stdout.split()),
    }


def is_within(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[kind] <= count for kind, count in before.items())


def processes_with(word: str) -> list[int]:
    """Of the whole machine, those that have it among their arguments."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and word.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def close_all(clients: list[Client]) -> None:
    for client in clients:
        client.close()
