"""What hosts report of their tasks, merged into the store's tasks. Pure.

A status only moves forward; what has ended stays as it ended. A host is believed only about tasks that are
assigned to it. When it reports a task as gone, the task's address is free again.
"""

from __future__ import annotations

from collections.abc import Iterable

from daemon.orchestration.leases import leases_held_by
from daemon.orchestration.task_states import ENDED_STATES
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskReport
from raft.store import Store
from raft.transaction import TransactionBuilder

MESSAGE_CHARACTERS_MAX = 1_000


class StatusMerge:
    """Reports of any number of hosts, in the order of their arrival, as one transaction."""

    def __init__(self, store: Store, now_unix_ms: int) -> None:
        self._store = store
        self._now_unix_ms = now_unix_ms
        self._changed: dict[str, objects.Task] = {}
        self._released: set[str] = set()

    def add(self, node_id: str, reports: Iterable[TaskReport]) -> None:
        """Takes in one host's reports; unknown tasks and those of other hosts are ignored."""
        for report in reports:
            before = self._changed.get(report.task_id) or self._store.get(objects.Task, report.task_id)
            if before is None or before.node_id != node_id:
                continue
            after = objects.Task()
            after.CopyFrom(before)
            merge_status(after.status, report.status, self._now_unix_ms)
            if report.gone and after.address:
                if after.status.state not in ENDED_STATES:
                    after.status.state = objects.TASK_STATE_FAILED
                    after.status.ready = False
                    after.status.message = "its host has nothing left of it"
                    after.status.finished_unix_ms = self._now_unix_ms
                after.address = ""
                self._released.add(report.task_id)
            if after != before:
                self._changed[report.task_id] = after

    def builder(self) -> TransactionBuilder:
        """No operations where nothing changed."""
        builder = TransactionBuilder()
        for task in self._changed.values():
            builder.update(task)
        for task_id in sorted(self._released):
            for lease in leases_held_by(self._store, task_id):
                builder.delete(lease)
        return builder


def merge_status(known: objects.TaskStatus, reported: objects.TaskStatus, now_unix_ms: int) -> None:
    """Brings `known` up to what is reported, in place; unchanged where that says nothing new."""
    if known.state in ENDED_STATES or reported.state < known.state:
        return
    if reported.state in (objects.TASK_STATE_UNSPECIFIED, objects.TASK_STATE_PENDING):
        return
    if reported.state == objects.TASK_STATE_LOST:  # only the cluster can say that
        return
    merged = objects.TaskStatus()
    merged.CopyFrom(reported)
    merged.message = reported.message[:MESSAGE_CHARACTERS_MAX]
    merged.ready = reported.ready and reported.state == objects.TASK_STATE_RUNNING
    if merged.state in ENDED_STATES and not merged.finished_unix_ms:
        merged.finished_unix_ms = now_unix_ms
    merged.reported_unix_ms = known.reported_unix_ms
    merged.balance_weight = known.balance_weight  # the leader's own
    if merged != known:
        merged.reported_unix_ms = now_unix_ms
        known.CopyFrom(merged)
