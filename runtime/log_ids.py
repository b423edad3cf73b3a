"""Which log a container writes to: its own, or, of one that belongs to a task, the task's. Pure.

Ids of tasks have no dot, and containerd allows one.
"""

from __future__ import annotations


def of_init(task_id: str, number: int) -> str:
    """The id of the container of a task's init task."""
    return f"{task_id}.init.{number}"


def task_of(container_id: str) -> str:
    """The task that a container belongs to; itself where it is that of the task."""
    return container_id.partition(".")[0]
