"""Scales services by their load, with at most one commit every few seconds for all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from daemon.errors import Refused
from daemon.leader.load_weights import Loads
from daemon.leader.writer import Writer
from daemon.orchestration.autoscale_loads import Load, Smoothed, loads_of
from daemon.orchestration.autoscale_plan import STABILISATION_MS_DEFAULT, Asked, History, ask, changed, decide
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad
from raft.store import Store
from raft.transaction import TransactionBuilder

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
FRESH_S_MAX = 30.0  # older loads count as not known
CHANGES_MAX = 500  # services in one transaction
Asking = dict[str, tuple[Asked, list[Load]]]  # by service


class Autoscaler:
    """Knows what was asked for since this host leads; a new leader takes no task away before it has looked for a while.

    `clock`: seconds that pass while the host is awake.
    """

    def __init__(self, writer: Writer, loads: Loads, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._loads = loads
        self._clock = clock
        self._smoothed = Smoothed()
        self._histories: dict[str, History] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(INTERVAL_S)
            store = self._writer.store
            if not any(scaled(service) for service in store.table(objects.Service)):
                self._histories.clear()
                continue
            now_ms = int(self._clock() * 1000)
            loads = self._smoothed.take(self._loads.fresh(FRESH_S_MAX), self._clock())
            asking = look(store, loads, self._histories, now_ms)
            try:
                await self._writer.commit(
                    lambda store, now_unix_ms, _, asking=asking, now_ms=now_ms: (  # type: ignore[misc]
                        plan_autoscale(store, asking, self._histories, now_ms, now_unix_ms),
                        None,
                    ),
                    actor="leader",
                )
            except Refused as refused:
                logger.warning("services were not scaled by their load: %s", refused.message)


def scaled(service: objects.Service) -> bool:
    return service.spec.HasField("autoscale") and not service.removing


def look(store: Store, loads: Mapping[str, TaskLoad], histories: dict[str, History], now_ms: int) -> Asking:
    """What each service's load asks for; `histories` are brought up to now."""
    asking: Asking = {}
    for service in store.table(objects.Service):
        if not scaled(service):
            continue
        found = loads_of(service, store.table(objects.Task).by("service", service.meta.id), loads)
        asked = ask(found, service.spec.replicas)
        asking[service.meta.id] = (asked, found)
        scale = service.spec.autoscale
        keep_ms = max(scale.stabilisation_ms or STABILISATION_MS_DEFAULT, scale.up_stabilisation_ms)
        history = histories.setdefault(service.meta.id, History(now_ms))
        history.note(now_ms, service.spec.replicas if asked.tasks is None else asked.tasks, keep_ms)
    for gone in histories.keys() - asking.keys():
        del histories[gone]
    return asking


def plan_autoscale(
    store: Store, asking: Asking, histories: Mapping[str, History], now_ms: int, now_unix_ms: int
) -> TransactionBuilder:
    """The services that are to have another number of tasks, or of which there is news. Pure. `now_ms`: as in the
    histories, whose clock nobody sets."""
    builder = TransactionBuilder()
    for service_id, (asked, found) in sorted(asking.items()):
        service = store.get(objects.Service, service_id)
        if service is None or not scaled(service) or len(builder) >= CHANGES_MAX:
            continue
        decision = decide(service, asked, histories[service_id], now_ms)
        after = changed(service, decision, found, now_unix_ms)
        if after is not None:
            builder.update(after)
    return builder
