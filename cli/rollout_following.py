"""Waits until what was deployed, rolled back or promoted has come to an end, and says which."""

from __future__ import annotations

import sys
import time
from collections.abc import Container
from dataclasses import dataclass

from cli import words
from cli.connection import Cluster
from cli.failure import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PAUSED,
    EXIT_ROLLED_BACK,
    EXIT_TASKS_FAILED,
    EXIT_TIMED_OUT,
    CommandFailed,
)
from cli.live import Live
from cli.progress_plan import Progress, deploy_progress
from cli.watching import WaitedTooLong, watch_tasks
from proto import control_pb2


@dataclass(frozen=True)
class Following:
    """What to wait for: `request` lists it, as it stands from `revision` of the store on; a rollback of one of the
    services in `changed` is not what was asked for."""

    asked: str  # "deploy shop"
    request: control_pb2.ListTasksRequest
    revision: int
    changed: Container[str] = frozenset()

    def follow(self, cluster: Cluster, timeout_ms: int, live: Live, done: str) -> int:
        """Shows the progress and returns EXIT_OK, or EXIT_INTERRUPTED after Ctrl-C. CommandFailed with an exit code
        of its own where tasks failed, were rolled back, wait for a person, or took longer than the timeout."""
        started = time.monotonic()
        app = self.request.app
        try:
            for reply in watch_tasks(cluster, f"watch {app}", self.request, started + timeout_ms / 1000):
                if reply.revision < self.revision:  # a follower that has not heard of it yet
                    continue
                progress = deploy_progress(reply, self.changed)
                live.show(progress)
                if progress.done:
                    break
                if progress.failed:
                    raise self._failure(progress)
        except WaitedTooLong:
            waited = words.duration(timeout_ms)
            message = f"not done after {waited}; it goes on in the cluster: fairway ps {app}"
            raise CommandFailed(self.asked, message, EXIT_TIMED_OUT) from None
        except KeyboardInterrupt:
            print(f"\nDetached. The {self.asked.split()[0]} goes on; watch it with: fairway ps {app}", file=sys.stderr)
            return EXIT_INTERRUPTED
        print(f"{done} in {time.monotonic() - started:.1f}s.", file=live.stream)
        return EXIT_OK

    def _failure(self, progress: Progress) -> CommandFailed:
        """Of several services, the worst."""
        app = self.request.app
        found = {line.mark: line for line in reversed(progress.lines)}
        if line := found.get("failed"):
            why = "; ".join(line.reasons) or "tasks ended and are not to be restarted"
            message = f"{line.name}: {why}; see: fairway logs {app}/{line.name}"
            return CommandFailed(self.asked, message, EXIT_TASKS_FAILED)
        if line := found.get("back"):
            message = f"{line.name} was rolled back: {'; '.join(line.reasons) or 'by an operator'}"
            return CommandFailed(self.asked, message, EXIT_ROLLED_BACK)
        line = found["paused"]
        return CommandFailed(self.asked, f"{line.name}: {'; '.join(line.reasons) or 'paused'}", EXIT_PAUSED)
