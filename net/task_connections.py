"""TCP connections to a task from within its own network namespace: no policy, balancer or other host is in between."""

from __future__ import annotations

import socket
from pathlib import Path

import trio

from net.namespaces import within_namespace


async def connect_within(process_id: int, address: str, port: int) -> trio.SocketStream:
    """A connection to a port of the network namespace that a process is in. Raises OSError.

    A socket stays in the namespace in which it was made; the thread that entered it does nothing else and has ended.
    """
    path = Path(f"/proc/{process_id}/ns/net")
    made = trio.socket.from_stdlib_socket(await trio.to_thread.run_sync(within_namespace, path, _open))
    try:
        await made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    opened.setblocking(False)
    return opened
