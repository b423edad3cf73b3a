"""What the fields of a task mean, in one place: ended, gone, alive, settled.

A task's status only moves forward. An ended task still holds its address until its host has reported that
nothing of it is left; then `address` is cleared and its lease deleted in one transaction. So an assigned
task without an address is *gone*.
"""

from __future__ import annotations

from proto import objects_pb2 as objects

ENDED_STATES = frozenset(
    {objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST},
)
SETTLE_MS = 1_000  # a task without a health check counts as replaced-by only after running this long
SETTLE_SAID_MS = 300  # ... where its service says how it is updated, and so what happens when one fails later


def ended(task: objects.Task) -> bool:
    """Its container has ended, or its host is down; it will never run again."""
    return task.status.state in ENDED_STATES


def assigned(task: objects.Task) -> bool:
    return bool(task.node_id)


def gone(task: objects.Task) -> bool:
    """Nothing of it is left on any host; only its record is."""
    return not task.address


def wanted(task: objects.Task) -> bool:
    """Its slot is its own: desired to run, whether or not it has ended meanwhile."""
    return task.desired == objects.DESIRED_STATE_RUNNING


def alive(task: objects.Task) -> bool:
    """Wanted, and not ended: pending tasks too."""
    return wanted(task) and not ended(task)


def serving(task: objects.Task) -> bool:
    """Running, wanted and ready for traffic."""
    return alive(task) and task.status.state == objects.TASK_STATE_RUNNING and task.status.ready


def succeeded(task: objects.Task) -> bool:
    return task.status.state == objects.TASK_STATE_EXITED and task.status.exit_code == 0


def settled_at_unix_ms(task: objects.Task) -> int | None:
    """When a replacement may be relied on: at once where a health check says so, else after a moment
    without a change (in the leader's time, so hosts' clocks do not matter). None: not ready."""
    if not serving(task):
        return None
    if task.status.health == objects.HEALTH_HEALTHY:
        return 0
    return task.meta.updated_unix_ms + (SETTLE_SAID_MS if task.spec.HasField("update") else SETTLE_MS)


def settled(task: objects.Task, now_unix_ms: int) -> bool:
    at = settled_at_unix_ms(task)
    return at is not None and at <= now_unix_ms


def named_volumes(spec: objects.ServiceSpec) -> list[str]:
    """Names of the volumes, within the app, that bind a task to a host; sorted."""
    return sorted(
        {mount.source for mount in spec.container.mounts if mount.kind == objects.Mount.KIND_VOLUME and mount.source}
    )


def age_key(task: objects.Task) -> tuple[int, str]:
    """Sorts tasks from the oldest to the newest, the same on every host."""
    return (task.meta.created_unix_ms, task.meta.id)
