"""Connections that begin in another network namespace, and leave no thread there."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
import trio

from net.dialing import dial
from net.errors import NetworkError
from net.namespaces import within_namespace
from tests.net.held_namespaces import HeldNamespaces
from tests.net.world import shell


def listening(namespace: Path, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return within_namespace(namespace, lambda: socket.create_server((address, 0), family=family))


def namespaces_of_threads() -> dict[threading.Thread, int]:
    """Not of all in /proc/self/task: the kernel may have one there for a moment that has ended."""
    found = {}
    for thread in threading.enumerate():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
            found[thread] = Path(f"/proc/self/task/{thread.native_id}/ns/net").stat().st_ino
    return found


def test_loopback_of_the_namespace_is_reached_and_no_thread_stays_there() -> None:
    namespaces = HeldNamespaces()
    try:
        namespace = namespaces.new()
        shell(namespace, "ip link set lo up")
        own = Path("/proc/self/ns/net").stat().st_ino
        before = namespaces_of_threads()  # those of other tests may be elsewhere

        async def talk(address: str) -> bytes:
            with listening(namespace, address) as listener:
                port = listener.getsockname()[1]
                stream = await dial(namespace, ("127.0.0.1", "::1"), port)
                async with stream:
                    there, _ = await trio.to_thread.run_sync(listener.accept)
                    with there:
                        there.sendall(b"hello")
                        return bytes(await stream.receive_some(10))

        for address in ("127.0.0.1", "::1"):
            assert trio.run(talk, address) == b"hello"
        after = namespaces_of_threads()
        assert after == {thread: before.get(thread, own) for thread in after}
        with pytest.raises(NetworkError, match=r"127\.0\.0\.1: connection refused; ::1: connection refused"):
            trio.run(dial, namespace, ("127.0.0.1", "::1"), 1)
        with pytest.raises(NetworkError, match="cannot be entered"):
            trio.run(dial, Path("/proc/0/ns/net"), ("127.0.0.1",), 1)
    finally:
        namespaces.close()
