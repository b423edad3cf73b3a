"""Watches tasks for as long as it takes, across changes of the leader and lost connections."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from cli.connection import Cluster
from cli.failure import EXIT_TIMED_OUT, EXIT_UNREACHABLE, CommandFailed
from proto import control_pb2, control_pb2_grpc

OUTAGE_SECONDS_MAX = 60.0
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 2.0


class WaitedTooLong(Exception):
    """The deadline has passed."""


def watch_tasks(
    cluster: Cluster,
    asked: str,
    request: control_pb2.ListTasksRequest,
    deadline: float,
    tick_seconds_max: float | None = None,
) -> Iterator[control_pb2.ListTasksReply]:
    """Listings of the tasks, the first at once and one whenever they change; at least one in each
    `tick_seconds_max`, where given. Raises WaitedTooLong when time.monotonic() passes `deadline`, and
    CommandFailed when the cluster cannot be reached for OUTAGE_SECONDS_MAX."""
    heard, backoff = time.monotonic(), _BACKOFF_SECONDS_MIN
    while True:
        now = time.monotonic()
        if now >= deadline:
            raise WaitedTooLong
        seconds = deadline - now if tick_seconds_max is None else min(deadline - now, tick_seconds_max)
        try:
            replies = cluster.stream(asked, functools.partial(_watch, request, seconds))
            for reply in replies:
                heard, backoff = time.monotonic(), _BACKOFF_SECONDS_MIN
                yield reply
        except CommandFailed as failure:
            if failure.exit_code == EXIT_TIMED_OUT:
                heard = time.monotonic()
                continue
            if failure.exit_code != EXIT_UNREACHABLE or time.monotonic() - heard > OUTAGE_SECONDS_MAX:
                raise
            cluster.reconnect()
        # Also where the server ended the stream by itself: its host shuts down, or no longer leads.
        time.sleep(min(backoff, max(0.0, deadline - time.monotonic())))
        backoff = min(backoff * 2, _BACKOFF_SECONDS_MAX)


def _watch(
    request: control_pb2.ListTasksRequest, seconds: float, control: control_pb2_grpc.ControlStub
) -> Iterator[control_pb2.ListTasksReply]:
    return control.WatchTasks(request, timeout=seconds)
