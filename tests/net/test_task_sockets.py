"""Listeners and clients of a network namespace, as the kernel tells them."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
import trio

from net.errors import NetworkError
from net.task_sockets import TaskSockets

SERVER = """
import socket, sys
listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_listeners_and_clients_of_this_namespace() -> None:
    async def main() -> None:
        with await TaskSockets.of_process(os.getpid()) as sockets, socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            assert port in sockets.listening()
            assert port not in sockets.connected()
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert port in sockets.connected()
                assert client.getsockname()[1] not in sockets.connected()
        with await TaskSockets.of_process(os.getpid()) as sockets:
            assert port not in sockets.listening()

    trio.run(main)


def test_only_the_asked_namespace_is_seen() -> None:
    command = ["unshare", "--net", "python3", "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        async def main() -> None:
            with await TaskSockets.of_process(server.pid) as sockets:
                assert sockets.listening() == {port}

        try:
            trio.run(main)
        finally:
            server.kill()


WITH_CLIENTS = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
taken = [listener.accept()[0] for _ in clients]
print("3", flush=True)
sys.stdin.readline()
taken.pop().close()
clients.pop().close()
print("2", flush=True)
sys.stdin.read()
"""


def test_clients_are_counted_once_and_without_their_own_ends() -> None:
    command = ["unshare", "--net", "python3", "-c", WITH_CLIENTS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            server.stdout.readline()
            with TaskSockets.within(server.pid) as sockets:
                assert sockets.client_count() == 3
                server.stdin.write("\n")
                server.stdin.flush()
                server.stdout.readline()
                assert sockets.client_count() == 2
        finally:
            server.kill()


def test_a_process_that_is_gone_is_an_error() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(NetworkError, match=str(ended.pid)):
        trio.run(TaskSockets.of_process, ended.pid)
