"""`port-forward` beside a server that plays the task."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import grpc
import pytest

from cli.commands.port_forward import Forwarded
from cli.failure import CommandFailed
from proto import hands_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer
from tests.cli.test_cli_rendering import listing, task

Output = hands_pb2.ForwardOutput
WAIT_SECONDS_MAX = 60.0


def echo(requests: Iterator[hands_pb2.ForwardInput], context: grpc.ServicerContext) -> Iterator[Output]:
    """Says back what it hears; after the client's end, how much that was."""
    heard = 0
    yield Output(connected="shop/web.1")
    for request in requests:
        if request.HasField("start") and request.start.port == 81:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "port 81 of the task takes no connection")
        heard += len(request.data)
        if request.data:
            yield Output(data=request.data)
        if request.end:
            yield Output(data=f" {heard}".encode())
            yield Output(end=True)
            return


@pytest.fixture
def forwarding(server: ControlServer) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    server.on("ListTasks", listing([], [task("web", 1, ready=True)]))
    server.on("Forward", echo)
    children: list[subprocess.Popen[str]] = []

    def start(*ports: str) -> tuple[subprocess.Popen[str], list[int]]:
        command = [sys.executable, "-m", "cli.main", "port-forward", "shop/web", *ports]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(child)
        output: IO[str] | None = child.stdout
        assert output is not None
        return child, [int(output.readline().split(" -> ")[0].rpartition(":")[2]) for _ in ports]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def read_all(client: socket.socket) -> bytes:
    found = b""
    while data := client.recv(65536):
        found += data
    return found


def send_and_end(client: socket.socket, content: bytes) -> None:
    client.sendall(content)
    client.shutdown(socket.SHUT_WR)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS_MAX)


def test_several_connections_with_half_closes(server: ControlServer, forwarding: Any) -> None:
    child, (first, second) = forwarding(":80", ":8080")
    content = os.urandom(3_000_000)
    results: dict[int, bytes] = {}

    def exchange(number: int) -> None:
        with connect(second if number % 2 else first) as client:
            sender = threading.Thread(target=send_and_end, args=(client, content))
            sender.start()
            results[number] = read_all(client)
            sender.join()

    threads = [threading.Thread(target=exchange, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)
    assert results == dict.fromkeys(range(4), content + b" 3000000")
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=WAIT_SECONDS_MAX) == 130


def test_what_the_task_refuses_is_said_and_the_next_connection_is_served(forwarding: Any) -> None:
    child, (refused, good) = forwarding(":81", ":80")
    with connect(refused) as client:
        assert client.recv(10) == b""
    assert "port 81 of the task takes no connection" in child.stderr.readline()
    with connect(good) as client:
        client.sendall(b"x")
        assert client.recv(10) == b"x"
        child.kill()
        assert read_all(client) == b""


def test_a_client_that_hangs_up_ends_its_stream(server: ControlServer, forwarding: Any) -> None:
    gone = threading.Event()

    def endless(requests: Any, context: grpc.ServicerContext) -> Iterator[Output]:
        context.add_callback(gone.set)
        while not gone.is_set():
            yield Output(data=bytes(65536))

    server.on("Forward", endless)
    _, (port,) = forwarding(":80")
    with connect(port) as client:
        client.recv(10)
    assert gone.wait(WAIT_SECONDS_MAX)


def test_ports_as_they_are_written(fairway: Callable[..., Ended], server: ControlServer) -> None:
    assert Forwarded.read("8080:80") == Forwarded(8080, 80)
    assert Forwarded.read("80") == Forwarded(80, 80)
    assert Forwarded.read(":80") == Forwarded(0, 80)
    for text in ("", ":", "0", "80:", "a:1", "1:2:3", "70000:1", "1:70000"):
        with pytest.raises(CommandFailed):
            Forwarded.read(text)
    server.on("ListTasks", listing([], []))
    assert "no such task or service" in fairway("port-forward", "nope", ":80").err
    server.on("ListTasks", listing([], [task("web", 1, ready=True)]))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = fairway("port-forward", "web", f"{taken.getsockname()[1]}:80")
    assert (ended.code, "Address already in use" in ended.err) == (1, True)
