"""Counts tasks that were started and have ended, as the cluster's events tell of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import grpc

from proto import control_pb2 as control
from proto import control_pb2_grpc as control_grpc

RETRY_SECONDS = 0.5
NEVER_STARTED = ("stopped before it had started",)


class TaskCounter:
    """Follows events in a thread. After a reconnection they are told again, so each task is counted by its id."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._ended: set[str] = set()
        self._failed = 0
        self._stopping = False
        self._stream: Any = None  # of the call that is under way
        self._since_unix_ms = int(time.time() * 1000)
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)
        self._thread.start()

    @property
    def started(self) -> int:
        with self._lock:
            return len(self._running)

    @property
    def stopped(self) -> int:
        """Tasks that were started and have ended."""
        with self._lock:
            return len(self._running & self._ended)

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stopping = True
        if self._stream is not None:
            self._stream.cancel()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopping:
            try:
                with grpc.insecure_channel(f"unix:{self._socket}") as channel:
                    request = control.ListEventsRequest(follow=True, since_unix_ms=self._since_unix_ms)
                    self._stream = stream = control_grpc.ControlStub(channel).ListEvents(request)
                    for event in stream:
                        if event.kind == "task":
                            self._note(event.subject_id, event.action, event.message)
            except grpc.RpcError:
                time.sleep(RETRY_SECONDS)  # a change of leaders; or stopped

    def _note(self, task_id: str, action: str, message: str) -> None:
        with self._lock:
            if action == "running":
                self._running.add(task_id)
            elif action in ("exited", "failed"):
                self._ended.add(task_id)
                # One that ended at once may have told both in one report.
                if action == "exited" and message not in NEVER_STARTED:
                    self._running.add(task_id)
