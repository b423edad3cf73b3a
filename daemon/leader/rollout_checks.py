"""Judges canaries by what their new tasks say: one that is bad for a while goes back, one not known does not go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from daemon.deploying.revisions_plan import find_revision, plan_revert
from daemon.errors import Refused
from daemon.leader.load_weights import Loads
from daemon.leader.writer import Writer
from daemon.orchestration.autoscale_loads import Smoothed
from daemon.orchestration.leases import LeasePool
from daemon.orchestration.rollout_check_plan import Look, look_at
from daemon.orchestration.scraped_metrics import is_checked
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad
from raft.store import Store
from raft.transaction import TransactionBuilder

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
FRESH_S_MAX = 15.0  # older values count as not known
BAD_MS_MAX = 6_000  # then it goes back


@dataclass
class Judge:
    """What was found of each version; in the leader's memory only, so a new leader waits anew before it goes back."""

    looks: dict[tuple[str, int], Look] = field(default_factory=dict)  # by service and generation
    bad_since_ms: dict[tuple[str, int], int] = field(default_factory=dict)

    def look(self, store: Store, loads: Mapping[str, TaskLoad], now_ms: int) -> None:
        """Takes in what is found now."""
        self.looks = {
            (service.meta.id, service.generation): look_at(
                service, store.table(objects.Task).by("service", service.meta.id), loads
            )
            for service in store.table(objects.Service)
            if is_checked(service)
        }
        bad = [key for key, look in self.looks.items() if look.state == objects.CHECK_STATE_BAD]
        self.bad_since_ms = {key: self.bad_since_ms.get(key, now_ms) for key in bad}

    def plan(self, store: Store, now_ms: int, now_unix_ms: int) -> TransactionBuilder:
        """What has to be stored of it. Changes nothing here."""
        builder = TransactionBuilder()
        for (service_id, generation), look in sorted(self.looks.items()):
            service = store.get(objects.Service, service_id)
            if service is None or service.generation != generation or not is_checked(service):
                continue
            since_ms = self.bad_since_ms.get((service_id, generation))
            if since_ms is not None and now_ms - since_ms >= BAD_MS_MAX:
                _go_back(builder, store, service, look.message, now_unix_ms)
            elif look.state != service.rollout.check_state or not service.rollout.check_message:
                after = objects.Service()
                after.CopyFrom(service)
                after.rollout.check_state, after.rollout.check_message = look.state, look.message
                builder.update(after)
        return builder


def _go_back(builder: TransactionBuilder, store: Store, service: objects.Service, words: str, now_unix_ms: int) -> None:
    """To the version before; where that cannot be, nothing more is replaced."""
    try:
        revision = find_revision(service)
        _, changes = plan_revert(store, LeasePool(store), service, revision, now_unix_ms, words)
    except Refused as refused:
        if service.rollout.state == objects.Rollout.STATE_FAILED:
            return
        after = objects.Service()
        after.CopyFrom(service)
        after.rollout.state = objects.Rollout.STATE_FAILED
        after.rollout.message = f"{words}; {refused.message}"
        builder.update(after)
    else:
        changes.into(builder)


class RolloutChecks:
    """`clock`: seconds that pass while the host is awake."""

    def __init__(self, writer: Writer, loads: Loads, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._loads = loads
        self._clock = clock
        self._smoothed = Smoothed()
        self._judge = Judge()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(INTERVAL_S)
            if not any(is_checked(service) for service in self._writer.store.table(objects.Service)):
                self._judge = Judge()
                continue
            now_ms = int(self._clock() * 1000)
            loads = self._smoothed.take(self._loads.fresh(FRESH_S_MAX), self._clock())
            self._judge.look(self._writer.store, loads, now_ms)
            try:
                await self._writer.commit(
                    lambda store, now_unix_ms, _, now_ms=now_ms: (  # type: ignore[misc]
                        self._judge.plan(store, now_ms, now_unix_ms),
                        None,
                    ),
                    actor="leader",
                )
            except Refused as refused:
                logger.warning("what new tasks say of themselves was not noted: %s", refused.message)
