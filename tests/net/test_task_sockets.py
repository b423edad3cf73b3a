"""Listeners and clients of a network namespace, as the kernel tells them."""

from __future__ import annotations

import socket
import subprocess

import pytest
import trio

from net.errors import NetworkError
from net.namespaces import within_namespace
from net.task_sockets import TaskSockets
from tests.net.held_namespaces import HeldNamespaces
from tests.net.world import connect, shell

SERVER = """
import socket, sys
listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_listeners_and_clients_of_a_namespace() -> None:
    """One that nobody else has: the ports of this machine's are taken and left by others meanwhile."""

    async def main() -> None:
        with await TaskSockets.of_process(process_id) as sockets:
            assert sockets.listening() == set()
            with within_namespace(namespace, lambda: socket.create_server(("127.0.0.1", 0))) as listener:
                port = listener.getsockname()[1]
                assert sockets.listening() == {port}
                assert sockets.connected() == set()
                with connect(namespace, "127.0.0.1", port):
                    assert sockets.connected() == {port}
            assert sockets.listening() == set()

    with HeldNamespaces() as namespaces:
        namespace = namespaces.new()
        process_id = int(namespace.parts[2])
        shell(namespace, "ip link set lo up")
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
