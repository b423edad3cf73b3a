"""Streams that go on for as long as the person looks: reconnected, with a bound, when a host goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cli.connection import Cluster
from cli.failure import EXIT_UNREACHABLE, CommandFailed
from proto import control_pb2_grpc

T = TypeVar("T")

OUTAGE_SECONDS_MAX = 60.0
_BACKOFF_SECONDS_MIN = 0.2
_BACKOFF_SECONDS_MAX = 2.0


def follow(
    cluster: Cluster,
    asked: str,
    invoke: Callable[[control_pb2_grpc.ControlStub], Iterator[T]],
    *,
    again: bool,
) -> Iterator[T]:
    """The replies of `invoke`. With `again`, a connection that is lost after it was good is made anew and
    `invoke` called again: it starts where the caller got to. Raises CommandFailed."""
    heard: float | None = None
    backoff = _BACKOFF_SECONDS_MIN
    while True:
        try:
            for reply in cluster.stream(asked, invoke):
                heard, backoff = time.monotonic(), _BACKOFF_SECONDS_MIN
                yield reply
            return
        except CommandFailed as failure:
            if not again or heard is None or failure.exit_code != EXIT_UNREACHABLE:
                raise
            if time.monotonic() - heard > OUTAGE_SECONDS_MAX:
                raise
        cluster.reconnect()
        time.sleep(backoff)
        backoff = min(backoff * 2, _BACKOFF_SECONDS_MAX)
