"""The next step of one task on its host: a pure function of what is wanted and what is there."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from proto import objects_pb2 as objects


class Step(enum.Enum):
    """What the host does next; each is safe to repeat."""

    START = "make image, volumes and network ready, create the container and start it"
    RECORD_VANISHED = "the container of a task that ran is not there: note the failure"
    RECORD_EXIT = "the container has ended: note how"
    WATCH = "it runs as it should: wait until something changes"
    AWAIT_WITHDRAWAL = "wait until no balancer sends new connections"
    STOP = "signal, wait, kill"
    CLEAN_UP = "remove container, network and files"
    DONE = "nothing of it is left"


class Container(enum.Enum):
    """The state of a task's container as containerd knows it."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Observation:
    """What is known of a task on its host."""

    container: Container
    cleaned: bool  # container, network and files are known to be removed
    withdrawn: bool  # no balancer sends new connections any more, or the wait for that is over
    failing: bool  # it must end here: its health check failed


ENDED = (objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED)
RAN = (objects.TASK_STATE_RUNNING, objects.TASK_STATE_STOPPING, objects.TASK_STATE_LOST)


def next_step(
    desired: objects.DesiredState.ValueType, state: objects.TaskState.ValueType, observed: Observation
) -> Step:
    """`desired` and `state` as in proto Task; a task that the cluster no longer knows is desired STOPPED."""
    wanted = desired == objects.DESIRED_STATE_RUNNING and not observed.failing
    if observed.container is Container.RUNNING:
        if wanted and state not in ENDED:
            return Step.WATCH
        return Step.STOP if observed.withdrawn else Step.AWAIT_WITHDRAWAL
    if observed.container is Container.STOPPED:
        return Step.CLEAN_UP if state in ENDED else Step.RECORD_EXIT
    if state in ENDED or not wanted:
        return Step.DONE if observed.cleaned else Step.CLEAN_UP
    if observed.container is Container.ABSENT and state in RAN:
        return Step.RECORD_VANISHED
    return Step.START
