"""TCP connections that begin in another network namespace, as a program in it would make them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from net.errors import NetworkError
from net.namespaces import within_namespace

CONNECT_S_MAX = 10.0


async def dial(namespace: Path, addresses: Sequence[str], port: int) -> trio.SocketStream:
    """A connection to the first of `addresses` that takes one, made in the namespace that the file stands for.

    A socket stays in the namespace that it was made in (network_namespaces(7)), so only making it is done there, by a
    thread that then ends: none of trio's, which are kept for other work, ever enters it. Raises NetworkError.
    """
    reasons = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        make = partial(socket.socket, family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made = trio.socket.from_stdlib_socket(await trio.to_thread.run_sync(within_namespace, namespace, make))
        except OSError as error:
            raise NetworkError(f"the namespace {namespace} cannot be entered: {error.strerror or error}") from error
        try:
            with trio.move_on_after(CONNECT_S_MAX):
                await made.connect((address, port))
                return trio.SocketStream(made)
            reasons.append(f"{address} does not answer within {CONNECT_S_MAX:.0f} s")
        except OSError as error:
            reasons.append(f"{address}: {os.strerror(error.errno).lower() if error.errno else error}")
        except BaseException:
            made.close()
            raise
        made.close()
    raise NetworkError("; ".join(reasons))
