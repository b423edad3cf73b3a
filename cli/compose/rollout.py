"""How a service's tasks are replaced: `deploy.update_config`, `deploy.rollback_config` and `x-fairway.rollout`."""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from cli.compose.rollout_check import read_check
from cli.compose.values import decimal
from proto import objects_pb2

PARALLELISM_MAX = 10_000
STEPS_MAX = 20
KEEP_MS = 600_000  # of a blue/green change's older tasks, where the file does not say
_MILLION = 1_000_000
_ACTIONS = {
    "pause": objects_pb2.FAILURE_ACTION_PAUSE,
    "continue": objects_pb2.FAILURE_ACTION_CONTINUE,
    "rollback": objects_pb2.FAILURE_ACTION_ROLLBACK,
}
_ORDERS = {
    "start-first": objects_pb2.UPDATE_ORDER_START_FIRST,
    "stop-first": objects_pb2.UPDATE_ORDER_STOP_FIRST,
}
_STRATEGIES = {
    "rolling": objects_pb2.RolloutSpec.STRATEGY_ROLLING,
    "canary": objects_pb2.RolloutSpec.STRATEGY_CANARY,
    "blue-green": objects_pb2.RolloutSpec.STRATEGY_BLUE_GREEN,
}
UPDATE_KEYS = frozenset({"parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"})
ROLLOUT_KEYS = frozenset({"strategy", "steps", "keep", "check"})
STEP_KEYS = frozenset({"share", "tasks", "wait"})


def read_update(reader: Reader, field: Field, config: objects_pb2.UpdateConfig, *, back: bool = False) -> None:
    """Fills `config`, of an update or of the way `back`; what is not said is one task at a time, without delay."""
    config.SetInParent()
    entries = reader.known_entries(field, UPDATE_KEYS)
    config.parallelism = 1
    if "parallelism" in entries:
        config.parallelism = reader.integer(entries["parallelism"], 0, PARALLELISM_MAX)
    if "delay" in entries:
        config.delay_ms = reader.duration_ms(entries["delay"])
    if "failure_action" in entries:
        actions = {word: action for word, action in _ACTIONS.items() if not back or word != "rollback"}
        waits = objects_pb2.FAILURE_ACTION_UNSPECIFIED
        config.failure_action = reader.choice(entries["failure_action"], actions, waits)
    if "monitor" in entries:
        config.monitor_ms = reader.duration_ms(entries["monitor"])
    if "max_failure_ratio" in entries:
        config.max_failure_millionths = reader.parsed(entries["max_failure_ratio"], ratio_millionths, 0)
    if "order" in entries:
        config.order = reader.choice(entries["order"], _ORDERS, objects_pb2.UPDATE_ORDER_UNSPECIFIED)


def read_rollout(reader: Reader, field: Field, rollout: objects_pb2.RolloutSpec) -> None:
    """Fills `rollout`."""
    rollout.SetInParent()
    entries = reader.known_entries(field, ROLLOUT_KEYS)
    if "strategy" in entries:
        rollout.strategy = reader.choice(entries["strategy"], _STRATEGIES, objects_pb2.RolloutSpec.STRATEGY_ROLLING)
    canary = rollout.strategy == objects_pb2.RolloutSpec.STRATEGY_CANARY
    if "steps" in entries:
        if not canary:
            reader.refuse(entries["steps"], "has an effect with strategy: canary only")
        _steps(reader, entries["steps"], rollout)
    elif canary:
        reader.refuse(field, "has strategy canary and no steps")
    if "check" in entries:
        if not canary:
            reader.refuse(entries["check"], "has an effect with strategy: canary only")
        read_check(reader, entries["check"], rollout.check)
    if rollout.strategy == objects_pb2.RolloutSpec.STRATEGY_BLUE_GREEN:
        rollout.keep_ms = KEEP_MS
    if "keep" in entries:
        if rollout.strategy != objects_pb2.RolloutSpec.STRATEGY_BLUE_GREEN:
            reader.refuse(entries["keep"], "has an effect with strategy: blue-green only")
        rollout.keep_ms = reader.duration_ms(entries["keep"])


def _steps(reader: Reader, field: Field, rollout: objects_pb2.RolloutSpec) -> None:
    elements = reader.elements(field)
    if not 0 < len(elements) <= STEPS_MAX:
        reader.refuse(field, f"needs between 1 and {STEPS_MAX} steps")
        return
    for each in elements:
        step = rollout.steps.add()
        entries = reader.known_entries(each, STEP_KEYS)
        if ("share" in entries) == ("tasks" in entries):
            reader.refuse(each, "needs either share or tasks")
        if "share" in entries:
            step.share_millionths = reader.parsed(entries["share"], share_millionths, _MILLION)
        if "tasks" in entries:
            step.tasks = reader.integer(entries["tasks"], 1, PARALLELISM_MAX, otherwise=1)
        if "wait" in entries and reader.text(entries["wait"]) != "by hand":
            step.wait_ms = reader.duration_ms(entries["wait"], low=1)


def ratio_millionths(text: str) -> int:
    """ "0.25" -> 250000."""
    value = decimal(text)
    if value is None or value > 1:
        raise ValueError(f"{text!r} is not a ratio between 0 and 1")
    return int(value * _MILLION)


def share_millionths(text: str) -> int:
    """ "12.5%" -> 125000."""
    number, percent, rest = text.strip().partition("%")
    value = decimal(number)
    if not percent or rest or value is None or not 0 < value <= 100:
        raise ValueError(f'{text!r} is not a share; write it like "10%"')
    return max(1, int(value * _MILLION / 100))
