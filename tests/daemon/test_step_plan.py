"""What a host does next for one task: a table of what is wanted and what is there."""

from __future__ import annotations

import pytest

from daemon.agent.step_plan import Container, Observation, Step, next_step
from proto import objects_pb2 as objects

RUN, STOP = objects.DESIRED_STATE_RUNNING, objects.DESIRED_STATE_STOPPED
ASSIGNED, RUNNING = objects.TASK_STATE_ASSIGNED, objects.TASK_STATE_RUNNING
PREPARING, STOPPING = objects.TASK_STATE_PREPARING, objects.TASK_STATE_STOPPING
EXITED, FAILED, LOST = objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST
ABSENT, CREATED, UP, ENDED = Container.ABSENT, Container.CREATED, Container.RUNNING, Container.STOPPED


def seen(container: Container, **known: bool) -> Observation:
    return Observation(container, **{"cleaned": False, "withdrawn": False, "failing": False, **known})


@pytest.mark.parametrize(
    ("desired", "state", "observed", "step"),
    [
        (RUN, ASSIGNED, seen(ABSENT), Step.START),
        (RUN, PREPARING, seen(ABSENT), Step.START),  # the daemon died while it prepared
        (RUN, PREPARING, seen(CREATED), Step.START),  # ... or between creating and starting
        (RUN, RUNNING, seen(UP), Step.WATCH),
        (RUN, PREPARING, seen(UP), Step.WATCH),  # ... or before it could report
        (RUN, RUNNING, seen(ABSENT), Step.RECORD_VANISHED),  # power cut
        (RUN, LOST, seen(ABSENT), Step.RECORD_VANISHED),
        (RUN, RUNNING, seen(ENDED), Step.RECORD_EXIT),
        (RUN, EXITED, seen(ENDED), Step.CLEAN_UP),
        (RUN, EXITED, seen(ABSENT), Step.CLEAN_UP),
        (RUN, EXITED, seen(ABSENT, cleaned=True), Step.DONE),
        (RUN, FAILED, seen(ABSENT, cleaned=True), Step.DONE),
        (STOP, RUNNING, seen(UP), Step.AWAIT_WITHDRAWAL),
        (STOP, RUNNING, seen(UP, withdrawn=True), Step.STOP),
        (STOP, STOPPING, seen(ENDED), Step.RECORD_EXIT),
        (STOP, ASSIGNED, seen(ABSENT), Step.CLEAN_UP),  # stopped before it was started
        (STOP, ASSIGNED, seen(CREATED), Step.CLEAN_UP),
        (STOP, LOST, seen(UP), Step.AWAIT_WITHDRAWAL),  # the host was cut off and is back
        (STOP, LOST, seen(ABSENT, cleaned=True), Step.DONE),
        (RUN, RUNNING, seen(UP, failing=True), Step.AWAIT_WITHDRAWAL),
        (RUN, RUNNING, seen(UP, failing=True, withdrawn=True), Step.STOP),
        (RUN, FAILED, seen(UP), Step.AWAIT_WITHDRAWAL),  # it was reported as ended, and yet it runs
    ],
)
def test_next_step(
    desired: objects.DesiredState.ValueType, state: objects.TaskState.ValueType, observed: Observation, step: Step
) -> None:
    assert next_step(desired, state, observed) is step
