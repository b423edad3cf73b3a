"""One host of a test: a process in a network namespace of its own that runs the real `Network`.

Reads base64 lines of a pickled (method, arguments) from standard input and answers each by a line.
"""

from __future__ import annotations

import base64
import ctypes
import logging
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import trio

from net import check_loop, ipv6_support
from net.network import Network


def answer(value: Any) -> None:
    sys.stdout.write(base64.b64encode(pickle.dumps(value)).decode() + "\n")
    sys.stdout.flush()


async def main(folder: Path, upstream: list[str]) -> None:
    answer((True, "in its namespace"))
    assert sys.stdin.readline().strip() == "start"
    again = True
    while again:
        async with trio.open_nursery() as nursery:
            network = Network(folder / "state", folder / "run", os.environ["FAIRWAY_TEST_PREFIX"], upstream)
            await nursery.start(network.run)
            answer((True, "running"))
            again = await serve(network)
            nursery.cancel_scope.cancel()


async def serve(network: Network) -> bool:
    """Carries out what is asked; returns whether it is to be started again."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        if line.strip() == "restart":
            return True
        method, arguments = pickle.loads(base64.b64decode(line))
        try:
            result = getattr(network, method)
            if callable(result):
                result = result(*arguments)
            if hasattr(result, "__await__"):
                result = await result
            answer((True, result))
        except Exception:
            answer((False, traceback.format_exc()))
    return False


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "unshare")
    # So that what is repaired sooner was noticed, not come upon.
    check_loop.CHECK_EVERY_SECONDS = float(
        os.environ.get("FAIRWAY_TEST_CHECK_EVERY_SECONDS", check_loop.CHECK_EVERY_SECONDS)
    )
    if "FAIRWAY_TEST_WITHOUT_IPV6" in os.environ:
        ipv6_support.MARK = Path("/proc/net/no_if_inet6")
    trio.run(main, Path(sys.argv[1]), sys.argv[2:])
