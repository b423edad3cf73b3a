"""Devices of hosts as the scheduler counts them: who holds which, and which ones a task would get. Pure.

A host tells devices by name and the units that each is made of (runtime/cdi_devices.py). What is held is units: by one
task alone, or by several where all of them got the unit under a name that is shared. A task holds its devices from its
assignment until nothing of it is left on the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from daemon.orchestration.task_states import gone
from proto import objects_pb2 as objects
from proto.device_rules import parse_property

Requests = Sequence[objects.DeviceRequest]
RequestsKey = tuple[bytes, ...]
_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Holder:
    task_id: str
    task: str  # "shop/train.1"
    shared: bool


@dataclass
class _Row:
    """One host. `version` counts changes of who holds what."""

    devices: Sequence[objects.HostDevice]
    by_name: dict[tuple[str, str], objects.HostDevice] = field(default_factory=dict)
    holders: dict[str, list[Holder]] = field(default_factory=dict)  # by unit
    version: int = 0


class DeviceStock:
    """Of all hosts, by their rows."""

    def __init__(self, nodes: Sequence[objects.Node]) -> None:
        self._rows: dict[int, _Row] = {}
        for number, node in enumerate(nodes):
            if devices := node.description.devices:
                names = {(device.kind, device.name): device for device in devices}
                self._rows[number] = _Row(sorted(devices, key=_natural_key), names)
        self._held: dict[str, tuple[int, Sequence[objects.AllottedDevice]]] = {}
        self._possible: dict[tuple[int, RequestsKey], bool] = {}
        self._now: dict[tuple[int, RequestsKey], tuple[int, list[objects.AllottedDevice] | None]] = {}

    @property
    def rows(self) -> Iterable[int]:
        """Hosts that have any."""
        return self._rows.keys()

    def hold(self, row: int, task: objects.Task, devices: Sequence[objects.AllottedDevice]) -> None:
        """The task has them from now on."""
        here = self._rows.setdefault(row, _Row(()))
        self._held[task.meta.id] = (row, devices)
        here.version += 1
        for device in devices:
            known = here.by_name.get((device.kind, device.name))
            # Its files may be named otherwise by now: then it is both what it was and what it is.
            for unit in dict.fromkeys([*device.units, *(known.units if known is not None else ())]):
                holder = Holder(task.meta.id, f"{task.app}/{task.meta.name}", device.shared)
                here.holders.setdefault(unit, []).append(holder)

    def release(self, task_id: str) -> None:
        """The reverse of `hold`; nothing where the task holds none."""
        row, _ = self._held.pop(task_id, (-1, ()))
        here = self._rows.get(row)
        if here is None:
            return
        here.version += 1
        for unit, holders in list(here.holders.items()):
            here.holders[unit] = [each for each in holders if each.task_id != task_id]

    def held_by(self, task_id: str) -> Sequence[objects.AllottedDevice]:
        """What was given to a task or held by it before."""
        return self._held.get(task_id, (-1, ()))[1]

    def allot(self, row: int, requests: Requests) -> list[objects.AllottedDevice] | None:
        """What a task that asks so would get there now; None where it is not all there. Holds nothing as yet."""
        here = self._rows.get(row)
        if here is None:
            return None
        key = (row, key_of(requests))
        known = self._now.get(key)
        if known is None or known[0] != here.version:
            known = self._now[key] = (here.version, _Allotment(here, here.holders).of(requests))
        return known[1]

    def possible(self, row: int, requests: Requests) -> bool:
        """Whether the host has it all, if no task holds anything."""
        here = self._rows.get(row)
        if here is None:
            return False
        key = (row, key_of(requests))
        known = self._possible.get(key)
        if known is None:
            known = self._possible[key] = _Allotment(here, {}).of(requests) is not None
        return known

    def holders_of(self, row: int, requests: Requests) -> Iterator[tuple[str, list[Holder]]]:
        """Devices there that are meant, by "kind=name", and the tasks that keep them from another one."""
        here = self._rows[row]
        allotment = _Allotment(here, here.holders)
        for device in allotment.meant(requests):
            holders = {each.task_id: each for unit in device.units for each in here.holders.get(unit, ())}
            if holders and not allotment.free(device):
                yield f"{device.kind}={device.name}", list(holders.values())


def has_devices(node: objects.Node, tasks: Iterable[objects.Task], requests: Requests) -> bool:
    """Whether the host has it all left beside these tasks."""
    stock = DeviceStock([node])
    for task in tasks:
        if task.devices and not gone(task):
            stock.hold(0, task, task.devices)
    return stock.allot(0, requests) is not None


def key_of(requests: Requests) -> RequestsKey:
    """Tasks with the same one ask for the same."""
    return tuple(request.SerializeToString(deterministic=True) for request in requests)


class _Allotment:
    """Devices for one task on one host: those that are named, then all of a kind, then any that are left so that every
    request gets its number. Of several that suit, those that fewer share come first, then those with lower names."""

    def __init__(self, row: _Row, holders: dict[str, list[Holder]]) -> None:
        self._row = row
        self._holders = holders
        self._units: set[str] = set()  # that this task has by now
        self._given: list[objects.HostDevice] = []

    def of(self, requests: Requests) -> list[objects.AllottedDevice] | None:
        named = (self._give(self._row.by_name.get((each.kind, name))) for each in requests for name in each.names)
        if not all(named):
            return None
        for request in requests:
            if not request.names and not request.count and not self._give_all(request):
                return None
        if not self._give_counted([each for each in requests for _ in range(each.count)]):
            return None
        return [
            objects.AllottedDevice(kind=each.kind, name=each.name, units=each.units, shared=each.shared)
            for each in self._given
        ]

    def free(self, device: objects.HostDevice) -> bool:
        """Whether a task may get it beside those that hold something of it."""
        for unit in device.units:
            holders = self._holders.get(unit, ())
            if holders and not (device.shared and all(each.shared for each in holders)):
                return False
            if device.tasks_max and len(holders) >= device.tasks_max:
                return False
        return True

    def meant(self, requests: Requests) -> list[objects.HostDevice]:
        """All that could be given for one of the requests, free or not."""
        found: dict[tuple[str, str], objects.HostDevice] = {}
        for request in requests:
            named = [self._row.by_name.get((request.kind, name)) for name in request.names]
            for device in [each for each in named if each is not None] if request.names else self._single(request):
                found[(device.kind, device.name)] = device
        return list(found.values())

    def _single(self, request: objects.DeviceRequest) -> list[objects.HostDevice]:
        """One name for each unit of the kind, of those with the properties."""
        wanted = [parsed for text in request.properties if (parsed := parse_property(text)) is not None]
        found: dict[str, objects.HostDevice] = {}
        for device in self._row.devices:
            if device.kind == request.kind and len(device.units) == 1 and _has(device, wanted):
                found.setdefault(device.units[0], device)
        return list(found.values())

    def _give(self, device: objects.HostDevice | None) -> bool:
        if device is None or not self.free(device) or not self._units.isdisjoint(device.units):
            return False
        self._units.update(device.units)
        self._given.append(device)
        return True

    def _give_all(self, request: objects.DeviceRequest) -> bool:
        single = self._single(request)
        return bool(single) and all(each.units[0] in self._units or self._give(each) for each in single)

    def _give_counted(self, wanted: Sequence[objects.DeviceRequest]) -> bool:
        """A matching of requests and devices, by augmenting paths: each request may have any that suits it, and must
        not lose to one that could have had another."""
        suiting: list[list[objects.HostDevice]] = []
        known: dict[int, list[objects.HostDevice]] = {}
        for request in wanted:
            if id(request) not in known:
                left = [each for each in self._single(request) if each.units[0] not in self._units and self.free(each)]
                known[id(request)] = sorted(left, key=lambda each: len(self._holders.get(each.units[0], ())))
            suiting.append(known[id(request)])
        chosen: dict[str, tuple[int, objects.HostDevice]] = {}  # by unit

        def seat(number: int, tried: set[str]) -> bool:
            for device in suiting[number]:
                unit = device.units[0]
                if unit in tried:
                    continue
                tried.add(unit)
                if unit not in chosen or seat(chosen[unit][0], tried):
                    chosen[unit] = (number, device)
                    return True
            return False

        if not all(seat(number, set()) for number in range(len(wanted))):
            return False
        order = sorted(chosen.values(), key=lambda each: (wanted.index(wanted[each[0]]), _natural_key(each[1])))
        return all(self._give(device) for _, device in order)


def _has(device: objects.HostDevice, wanted: Iterable[tuple[str, bool, str]]) -> bool:
    return all((device.properties.get(key, "") == value) == equal for key, equal, value in wanted)


def _natural_key(device: objects.HostDevice) -> tuple[str, list[tuple[int, int, str]]]:
    """2 before 10, and short names before the long ones that mean the same."""
    parts = _NUMBERS.split(device.name)
    return device.kind, [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]
