"""What one desired network changes over the one before it, found by identity first; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from net.model import DesiredNetwork, Endpoint, Frontend, LocalTask, NetworkInfo

T = TypeVar("T")


@dataclass
class Change:
    """Names what is different; empty where nothing is."""

    settings: bool = False  # config or local host
    hosts: bool = False
    networks: bool = False
    tasks: bool = False
    policies: bool = False
    services: set[str] = field(default_factory=set)  # ids, removed ones included
    # (networks, address, +1 or -1) of endpoints
    memberships: list[tuple[tuple[str, ...], str, int]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)  # addresses that get no new connections any more
    gone: list[str] = field(default_factory=list)  # addresses whose task is no more
    vanished: list[str] = field(default_factory=list)  # the same, but it was not withdrawn first
    taken: list[str] = field(default_factory=list)  # addresses that tasks of this host have now and had not before

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def then(self, later: Change) -> Change:
        """Both as one: for when this one did not reach the kernel, but the memberships, which are counted, did."""
        return Change(
            settings=self.settings or later.settings,
            hosts=self.hosts or later.hosts,
            networks=self.networks or later.networks,
            tasks=self.tasks or later.tasks,
            policies=self.policies or later.policies,
            services=self.services | later.services,
            memberships=later.memberships,
            withdrawn=self.withdrawn + later.withdrawn,
            gone=self.gone + later.gone,
            vanished=self.vanished + later.vanished,
            taken=self.taken + later.taken,
        )


class DesiredIndex:
    """The desired network by its keys; `advance` moves it on and tells the difference."""

    def __init__(self) -> None:
        self.desired: DesiredNetwork | None = None
        self.frontends: dict[str, Frontend] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.networks: dict[str, NetworkInfo] = {}
        self.tasks: dict[str, LocalTask] = {}
        self.local_networks: dict[str, set[str]] = {}  # network id -> addresses of local tasks in it
        self._by_service: dict[str, dict[str, Endpoint]] = defaultdict(dict)

    def endpoints_of(self, service_id: str) -> Collection[Endpoint]:
        return self._by_service.get(service_id, {}).values()

    def reused(self, addresses: Collection[str], change: Change) -> set[str]:
        """Those of these addresses that have an endpoint, or that `change` gave to a task of this host."""
        if not addresses:
            return set()
        return {each.address for each in self.endpoints.values()}.union(change.taken).intersection(addresses)

    def advance(self, desired: DesiredNetwork) -> Change:
        old = self.desired
        change = Change(
            settings=old is None or old.config != desired.config or old.local != desired.local,
            hosts=old is None or not _same(old.hosts, desired.hosts),
        )
        if old is None or old.endpoints is not desired.endpoints:
            self._advance_endpoints(old.endpoints if old is not None else (), desired.endpoints, change)
        if old is None or old.frontends is not desired.frontends:
            wanted = {each.service_id: each for each in desired.frontends}
            change.services.update(_changed_keys(self.frontends, wanted))
            self.frontends = wanted
        if old is None or not _same(old.networks, desired.networks):
            self.networks = {each.network_id: each for each in desired.networks}
            change.networks = True
        if old is None or not _same(old.tasks, desired.tasks):
            known = self.tasks
            self._advance_tasks(desired.tasks)
            change.tasks = True
            change.taken = [task.address for task in desired.tasks if task.task_id not in known]
        change.policies = old is None or not _same(old.policies, desired.policies)
        self.desired = desired
        return change

    def _advance_endpoints(self, old: tuple[Endpoint, ...], new: tuple[Endpoint, ...], change: Change) -> None:
        replaced = _replaced(old, new)
        if replaced is not None:
            self._take_endpoints([(before, after) for before, after in replaced if before != after], change)
            self.endpoints.update((after.task_id, after) for _, after in replaced)
            return
        wanted = {each.task_id: each for each in new}
        changed = _changed_keys(self.endpoints, wanted)
        self._take_endpoints([(self.endpoints.get(each), wanted.get(each)) for each in changed], change)
        self.endpoints = wanted

    def _take_endpoints(self, pairs: Iterable[tuple[Endpoint | None, Endpoint | None]], change: Change) -> None:
        """`pairs`: each endpoint that changed, before (None: came) and after (None: went)."""
        for before, after in pairs:
            if before is not None:
                change.services.add(before.service_id)
                change.memberships.append((before.networks, before.address, -1))
                self._by_service[before.service_id].pop(before.task_id, None)
                if not self._by_service[before.service_id]:
                    del self._by_service[before.service_id]
                if after is None or after.address != before.address:
                    (change.vanished if before.ready else change.gone).append(before.address)
                elif before.ready and not after.ready:
                    change.withdrawn.append(before.address)
            if after is not None:
                change.services.add(after.service_id)
                change.memberships.append((after.networks, after.address, +1))
                self._by_service[after.service_id][after.task_id] = after

    def _advance_tasks(self, tasks: tuple[LocalTask, ...]) -> None:
        self.tasks = {each.task_id: each for each in tasks}
        self.local_networks = {}
        for task in tasks:
            for network_id in task.networks:
                self.local_networks.setdefault(network_id, set()).add(task.address)


def _same(old: tuple[T, ...], new: tuple[T, ...]) -> bool:
    return old is new or old == new


def _replaced(old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> list[tuple[Endpoint, Endpoint]] | None:
    """What differs where `new` has the same endpoints at the same places, found by identity; None: it has others."""
    if len(old) != len(new):
        return None
    pairs = [pair for pair in zip(old, new, strict=True) if pair[0] is not pair[1]]
    return pairs if all(before.task_id == after.task_id for before, after in pairs) else None


def _changed_keys(old: dict[str, T], new: dict[str, T]) -> set[str]:
    """Keys that came, went or have another value; `==` is asked only where the object is another."""
    get = old.get
    changed = {key for key, value in new.items() if (before := get(key)) is not value and before != value}
    came = sum(1 for key in changed if key not in old)
    if len(old) + came != len(new):
        changed.update(old.keys() - new.keys())
    return changed
