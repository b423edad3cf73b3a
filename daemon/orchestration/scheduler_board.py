"""The ranking of all hosts for tasks of one shape: worked out once, then kept up with what is placed. Pure.

A shape is a version of a service with what its tasks reserve. Two columns rank a host, the lower the better: `_policy`
(what the service asks for) and, among equals, `_room` (how much is left). Both are numbers of fields, the most
significant first, so that one comparison of numbers compares all levels of the ranking in their order. What others
place changes the room on single hosts; what the service places itself changes its counts there and in the groups of
that host. Within a plan room only shrinks, so a host that does not fit once never fits again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from daemon.orchestration import constraints
from daemon.orchestration.host_ports import HostPort
from daemon.orchestration.scheduler_affinity import Rules
from daemon.orchestration.scheduler_filters import Filter
from daemon.orchestration.scheduler_hosts import LOAD_PARTS, Flags, Hosts, Numbers
from daemon.orchestration.scheduler_words import ZONE_LABEL
from proto import objects_pb2 as objects

FAILURES_TOLERATED = 2  # so many failures of a service on a host within the window count against it
ZONE_KEYS = (constraints.LABEL_PREFIX + ZONE_LABEL,)
COARSE_PARTS = LOAD_PARTS // 10

# Bits of the fields of `_policy`. Counts are above the smallest and leave HEADROOM for what is placed before they are
# worked out anew; greater differences count as the greatest.
FAILURE_BITS, LIKED_BITS, GROUP_BITS, HOST_BITS, ZONE_BITS = 2, 11, 12, 11, 13
LIKED_ZERO = 1 << (LIKED_BITS - 1)
HEADROOM = 512
UNFIT = 1 << 62
UNFIT_MIN = 1 << 61  # what is added to or taken from the number of a host that does not fit leaves it above this
# Of `_room`.
FULLNESS_MAX, LOAD_MAX, COARSE_MAX, TASKS_MAX = (1 << 22) - 1, (1 << 22) - 1, 31, (1 << 12) - 1

REFRESHED_MAX = 32  # hosts; beyond, working out all of them is quicker


class Board:
    """`log` has every host that got a task in this plan, in order; the board has seen its beginning."""

    def __init__(
        self,
        hosts: Hosts,
        task: objects.Task,
        ports: Sequence[HostPort],
        rules: Rules,
        allowed: Flags,
        image_absent: Numbers | None,
        filters: Callable[[], list[Filter]],
        log: Sequence[int],
    ) -> None:
        self._hosts = hosts
        self._cpu_millis = task.spec.resources.cpu_reserved_millis
        self._memory_bytes = task.spec.resources.memory_reserved_bytes
        self._devices = task.spec.resources.devices
        self._ports = ports
        self._rules = rules
        self._own = rules.own
        self._pack = task.spec.placement.pack
        self._allowed = allowed
        self._absent = image_absent if image_absent is not None else hosts.zeros()
        self._filters = filters
        self._log = log
        self._keys = spread_keys(task.spec)
        self._build()

    def best(self) -> int | None:
        """The host that is first in the ranking; None where none fits."""
        self._catch_up()
        if not self._policy.size:
            return None
        least = self._policy.min()
        if least >= UNFIT_MIN:
            return None
        rows = (self._policy == least).nonzero()[0]
        return int(rows[self._room[rows].argmin()])

    def _build(self) -> None:
        hosts, own, rules = self._hosts, self._own, self._rules
        self._seen, self._own_seen, self._built_at = len(self._log), len(own.log), rules.version()
        self._own_at_build = self._own_seen
        fits = self._allowed.copy()
        for one in self._filters():
            fits &= ~one.refuses
        fields: list[tuple[Numbers, int]] = []
        failures = hosts.zeros() if own.failures is None else own.failures // FAILURES_TOLERATED
        fields.append((np.minimum(failures, (1 << FAILURE_BITS) - 1), FAILURE_BITS))
        liked = rules.liking()
        fields.append((np.clip(LIKED_ZERO - liked, 0, 2 * LIKED_ZERO - 1), LIKED_BITS))
        for keys, bits in self._keys:
            if keys is None:
                counts = own.by_host if not self._pack else hosts.zeros()
            else:
                counts = own.by_group(keys)[hosts.groups(keys)[0]]
            fields.append((_above_least(counts, fits, bits), bits))
        self._policy = hosts.zeros()
        for values, bits in fields:
            self._policy = (self._policy << bits) + values
        self._steps: list[tuple[tuple[str, ...] | None, int]] = []
        offset = 0
        for keys, bits in reversed(self._keys):
            if keys is not None or not self._pack:
                self._steps.append((keys, 1 << offset))
            offset += bits
        self._liked_step = 1 << offset
        self._policy[~fits] = UNFIT
        self._room = self._room_of(np.arange(hosts.count))

    def _room_of(self, rows: Numbers) -> Numbers:
        hosts = self._hosts
        load = np.minimum(hosts.load(rows, self._cpu_millis, self._memory_bytes), LOAD_MAX)
        coarse = np.minimum(load // COARSE_PARTS, COARSE_MAX)
        room = (coarse << 1) + self._absent[rows]
        if self._pack:
            fullness = np.clip(hosts.fullness(rows), 0, FULLNESS_MAX)
            room += (FULLNESS_MAX - fullness) << 6
        found: Numbers = (((room << 22) + load) << 12) + np.minimum(hosts.task_count[rows], TASKS_MAX)
        return found

    def _room_at(self, host: int) -> int:
        """The same of one host: arrays of one number cost several times as much as numbers."""
        hosts = self._hosts
        load = min(hosts.load_at(host, self._cpu_millis, self._memory_bytes), LOAD_MAX)
        room = (min(load // COARSE_PARTS, COARSE_MAX) << 1) + int(self._absent[host])
        if self._pack:
            room += (FULLNESS_MAX - min(max(hosts.fullness_at(host), 0), FULLNESS_MAX)) << 6
        return (((room << 22) + load) << 12) + min(int(hosts.task_count[host]), TASKS_MAX)

    def _catch_up(self) -> None:
        fresh = len(self._log) - self._seen
        version = self._rules.version()
        if not fresh and version == self._built_at:
            return
        own_fresh = len(self._own.log) - self._own_seen
        if (
            fresh > REFRESHED_MAX
            or version != self._built_at
            or (own_fresh > 1 and self._rules.about_itself)
            or len(self._own.log) - self._own_at_build >= HEADROOM
        ):
            self._build()
            return
        for host in self._own.log[self._own_seen :]:
            self._count_own(host)
        self._own_seen = len(self._own.log)
        rows = dict.fromkeys(self._log[self._seen :])
        self._seen = len(self._log)
        for host in rows:
            if self._has_room(host):
                self._room[host] = self._room_at(host)
            else:
                self._policy[host] = UNFIT

    def _count_own(self, host: int) -> None:
        for keys, step in self._steps:
            if keys is None:
                self._policy[host] += step
            else:
                self._policy[self._hosts.rows_like(keys, host)] += step
        for rows, change in self._rules.after(host):
            if change is None:
                self._policy[rows] = UNFIT
            else:
                self._policy[rows] -= change * self._liked_step

    def _has_room(self, host: int) -> bool:
        hosts = self._hosts
        return bool(
            (not self._cpu_millis or hosts.cpu_free_millis.item(host) >= self._cpu_millis)
            and (not self._memory_bytes or hosts.memory_free_bytes.item(host) >= self._memory_bytes)
            and hosts.addresses_free.item(host) > 0
            and not any(hosts.has_port(host, port) for port in self._ports)
            and (not self._devices or hosts.devices.allot(host, self._devices) is not None)
        )


def spread_keys(spec: objects.ServiceSpec) -> list[tuple[tuple[str, ...] | None, int]]:
    """What the service's tasks are counted by, the most important first, and the bits of each count; None: the host."""
    preferred = list(spec.placement.spread_over)
    groups: list[tuple[tuple[str, ...] | None, int]] = [
        (tuple(preferred[: number + 1]), GROUP_BITS) for number in range(len(preferred))
    ]
    if preferred:
        return [*groups, (None, HOST_BITS)]
    if spec.placement.pack:
        return [(None, HOST_BITS)]
    return [(None, HOST_BITS), (ZONE_KEYS, ZONE_BITS)]


def _above_least(counts: Numbers, fits: Flags, bits: int) -> Numbers:
    least = counts[fits].min() if fits.any() else 0
    clipped: Numbers = np.clip(counts - least, 0, (1 << bits) - 1 - HEADROOM)
    return clipped
