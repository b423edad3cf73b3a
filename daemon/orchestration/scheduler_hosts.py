"""The cluster's hosts as columns of numbers: one row a host, in the order of their names. Pure.

A question about all hosts is then a few operations on arrays, and a placement changes one row. NumPy is loaded with
this file, so it is imported where a plan is made: hosts that do not lead never pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read as NumPy is loaded: it would start threads for nothing
import numpy as np
from numpy.typing import NDArray

from daemon.orchestration.constraints import Constraint, values_of
from daemon.orchestration.host_ports import HostPort, clash
from daemon.orchestration.leases import task_addresses
from daemon.orchestration.scheduler_devices import DeviceStock
from proto import objects_pb2 as objects

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Parts = NDArray[np.float64]
V = TypeVar("V", bound=Hashable)

LOAD_PARTS = 1_000_000  # a load is told from another by so many parts of a host


class Hosts:
    """What each host has and how much of it is taken. Counts every task that has not ended, reservations exactly.

    All columns have one entry a host: `cpu_millis` and `cpu_free_millis` in thousandths of a core, `memory_bytes` and
    `memory_free_bytes`, `addresses_free` for tasks, ended ones that are not gone included, `task_count`. Free amounts
    are below zero where a host has become smaller than what runs on it."""

    def __init__(self, nodes: Iterable[objects.Node]) -> None:
        self.nodes = sorted(nodes, key=lambda node: (node.meta.name, node.meta.id))
        self.count = len(self.nodes)
        self.index = {node.meta.id: number for number, node in enumerate(self.nodes)}
        self.cpu_millis = self._numbers(node.description.cpu_millis for node in self.nodes)
        self.memory_bytes = self._numbers(node.description.memory_bytes for node in self.nodes)
        self.addresses_free = self._numbers(task_addresses(node) for node in self.nodes)
        self.cpu_free_millis = self.cpu_millis.copy()
        self.memory_free_bytes = self.memory_bytes.copy()
        self.task_count = self.zeros()
        self.devices = DeviceStock(self.nodes)
        self._cpu_divisor = np.maximum(self.cpu_millis, 1)
        self._memory_divisor = np.maximum(self.memory_bytes, 1)
        self._ports: dict[tuple[str, int], dict[int, list[HostPort]]] = {}
        self._columns: dict[Hashable, Any] = {}
        self._rows: dict[tuple[str, ...], tuple[Numbers, list[Numbers]]] = {}

    def zeros(self) -> Numbers:
        return np.zeros(self.count, dtype=np.int64)

    def add(self, host: int, cpu_millis: int, memory_bytes: int, ports: Iterable[HostPort]) -> None:
        """A task on that row."""
        self.cpu_free_millis[host] -= cpu_millis
        self.memory_free_bytes[host] -= memory_bytes
        self.addresses_free[host] -= 1
        self.task_count[host] += 1
        for port in ports:
            self._ports.setdefault(port[:2], {}).setdefault(host, []).append(port)

    def remove(self, host: int, cpu_millis: int, memory_bytes: int, ports: Iterable[HostPort]) -> None:
        """The reverse of `add`."""
        self.cpu_free_millis[host] += cpu_millis
        self.memory_free_bytes[host] += memory_bytes
        self.addresses_free[host] += 1
        self.task_count[host] -= 1
        for port in ports:
            self._ports[port[:2]][host].remove(port)

    def has_port(self, host: int, port: HostPort) -> bool:
        """Whether a task on that row publishes it, or one that clashes."""
        return self.count_port(host, port) > 0

    def count_port(self, host: int, port: HostPort) -> int:
        """Ports of tasks on that row that are it, or clash with it."""
        return sum(clash(port, taken) for taken in self._ports.get(port[:2], {}).get(host, ()))

    def hosts_with(self, port: HostPort) -> list[int]:
        """Rows where it is taken."""
        return [host for host in self._ports.get(port[:2], ()) if self.has_port(host, port)]

    def load(self, hosts: Numbers, cpu_millis: int, memory_bytes: int) -> Numbers:
        """Of those rows, with another task that reserves so much: the reserved part of the scarcer of CPU and memory,
        in millionths."""
        cpu, memory = self._reserved(hosts, cpu_millis, memory_bytes)
        load: Numbers = np.rint(np.maximum(cpu, memory) * LOAD_PARTS).astype(np.int64)
        return load

    def fullness(self, hosts: Numbers) -> Numbers:
        """Of those rows: the reserved parts of CPU and memory together, in millionths."""
        cpu, memory = self._reserved(hosts, 0, 0)
        return np.rint((cpu + memory) * LOAD_PARTS).astype(np.int64)

    def load_at(self, host: int, cpu_millis: int, memory_bytes: int) -> int:
        """As `load`, of one row."""
        return round(max(self._reserved_at(host, cpu_millis, memory_bytes)) * LOAD_PARTS)

    def fullness_at(self, host: int) -> int:
        """As `fullness`, of one row."""
        return round(sum(self._reserved_at(host, 0, 0)) * LOAD_PARTS)

    def column(self, key: Hashable, of: Callable[[objects.Node], V]) -> tuple[Numbers, Sequence[V]]:
        """A property of hosts as small numbers, and what each number stands for; worked out once for a `key`."""
        known: tuple[Numbers, Sequence[V]] | None = self._columns.get(key)
        if known is None:
            numbers: dict[V, int] = {}
            column = self._numbers(numbers.setdefault(of(node), len(numbers)) for node in self.nodes)
            known = self._columns[key] = (column, list(numbers))
        return known

    def accepting(self, constraint: Constraint) -> Flags:
        """By host: whether the constraint allows it."""
        column, values = self.column(constraint.key, lambda node: values_of(constraint.key, node))
        return np.array([constraint.accepts(one) for one in values], dtype=np.bool_)[column]

    def groups(self, keys: tuple[str, ...]) -> tuple[Numbers, int]:
        """Hosts with the same values of all `keys` (of constraints) have the same number; and how many there are."""
        column, values = self.column(keys, lambda node: tuple(values_of(key, node) for key in keys))
        return column, len(values)

    def rows_like(self, keys: tuple[str, ...], host: int) -> Numbers:
        """All hosts of that host's group, itself included."""
        known = self._rows.get(keys)
        if known is None:
            column, count = self.groups(keys)
            order = np.argsort(column, kind="stable")
            bounds = np.cumsum(np.bincount(column, minlength=count))[:-1]
            known = self._rows[keys] = (column, np.split(order, bounds))
        rows: Numbers = known[1][known[0][host]]
        return rows

    def names(self, flags: Flags, count_max: int) -> list[str]:
        """Of the first of the hosts that are flagged."""
        return [self.nodes[host].meta.name for host in np.flatnonzero(flags)[:count_max]]

    def _reserved(self, hosts: Numbers, cpu_millis: int, memory_bytes: int) -> tuple[Parts, Parts]:
        cpu = (self.cpu_millis[hosts] - self.cpu_free_millis[hosts] + cpu_millis) / self._cpu_divisor[hosts]
        memory = (self.memory_bytes[hosts] - self.memory_free_bytes[hosts] + memory_bytes) / self._memory_divisor[hosts]
        return cpu, memory

    def _reserved_at(self, host: int, cpu_millis: int, memory_bytes: int) -> tuple[float, float]:
        cpu = self.cpu_millis.item(host) - self.cpu_free_millis.item(host) + cpu_millis
        memory = self.memory_bytes.item(host) - self.memory_free_bytes.item(host) + memory_bytes
        return cpu / self._cpu_divisor.item(host), memory / self._memory_divisor.item(host)

    def _numbers(self, values: Iterable[int]) -> Numbers:
        return np.fromiter(values, dtype=np.int64, count=self.count)


class ServiceTasks:
    """Where the wanted tasks of one service are, and where it failed lately."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self.log: list[int] = []  # the host of each task, in the order in which they came
        self.by_host = hosts.zeros()
        self.slots_by_host = hosts.zeros()  # two tasks of a slot, one replacing the other, are one
        self.failures: Numbers | None = None
        self._by_group: dict[tuple[str, ...], Numbers] = {}
        self._hosts_of_slot: dict[int, list[int]] = {}

    def add(self, slot: int, host: int) -> None:
        self.log.append(host)
        self.by_host[host] += 1
        rows = self._hosts_of_slot.setdefault(slot, [])
        if host not in rows:
            self.slots_by_host[host] += 1
        rows.append(host)
        for keys, counts in self._by_group.items():
            counts[self._hosts.groups(keys)[0][host]] += 1

    def move(self, slot: int, source: int, target: int) -> None:
        """A task of that slot is on another host from now on."""
        rows = self._hosts_of_slot[slot]
        rows.remove(source)
        self.slots_by_host[source] -= source not in rows
        self.slots_by_host[target] += target not in rows
        rows.append(target)
        self.log[self.log.index(source)] = target
        self.by_host[source] -= 1
        self.by_host[target] += 1
        for keys, counts in self._by_group.items():
            counts[self._hosts.groups(keys)[0][source]] -= 1
            counts[self._hosts.groups(keys)[0][target]] += 1

    def remove_last(self, slot: int) -> None:
        """Takes back the last `add`, which was of that slot."""
        host = self.log.pop()
        self.by_host[host] -= 1
        rows = self._hosts_of_slot[slot]
        rows.remove(host)
        if host not in rows:
            self.slots_by_host[host] -= 1
        if not rows:
            del self._hosts_of_slot[slot]
        for keys, counts in self._by_group.items():
            counts[self._hosts.groups(keys)[0][host]] -= 1

    def add_failure(self, host: int) -> None:
        if self.failures is None:
            self.failures = self._hosts.zeros()
        self.failures[host] += 1

    def by_group(self, keys: tuple[str, ...]) -> Numbers:
        """Tasks by group of hosts."""
        known = self._by_group.get(keys)
        if known is None:
            groups, count = self._hosts.groups(keys)
            known = np.bincount(groups, weights=self.by_host, minlength=count).astype(np.int64)
            self._by_group[keys] = known
        return known

    def has_slot(self, slot: int) -> bool:
        """Whether one of its tasks is that slot's."""
        return slot in self._hosts_of_slot

    def other_slots_by_host(self, slot: int) -> Numbers:
        """Slots besides this one that have a task there."""
        rows = self._hosts_of_slot.get(slot)
        if not rows:
            return self.slots_by_host
        counts = self.slots_by_host.copy()
        counts[rows] -= 1  # once, where a host is named twice
        return counts

    def others_by_group(self, slot: int, keys: tuple[str, ...]) -> Numbers:
        """Tasks by group of hosts, without those of this slot."""
        counts = self.by_group(keys)
        rows = self._hosts_of_slot.get(slot)
        if not rows:
            return counts
        counts = counts.copy()
        np.subtract.at(counts, self._hosts.groups(keys)[0][rows], 1)
        return counts
