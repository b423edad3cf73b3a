"""Why hosts do not take a task for the devices that it asks for: they do not have them, or tasks hold them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daemon.orchestration.quantities import names_text
from daemon.orchestration.scheduler_devices import Requests
from daemon.orchestration.scheduler_filters import Filter
from daemon.orchestration.scheduler_hosts import Flags, Hosts
from daemon.orchestration.scheduler_words import DEVICES_HELD, Refusal
from proto.device_rules import request_words

DEVICES_SHOWN_MAX = 4
HOLDERS_SHOWN_MAX = 3


def device_filters(hosts: Hosts, requests: Requests) -> Iterator[Filter]:
    """Those that no end of tasks would help first. Nothing where nothing is asked for."""
    if not requests:
        return
    by_kind: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        by_kind.setdefault(request.kind, []).append(number)
    lacking = np.zeros(hosts.count, dtype=np.bool_)
    for numbers in by_kind.values():
        of_kind = [requests[number] for number in numbers]
        lacks = _lacking(hosts, of_kind)
        yield _filter(of_kind, lacks)
        lacking |= lacks
    if len(by_kind) > 1:  # devices of two kinds may be the same thing
        together = _lacking(hosts, requests) & ~lacking
        yield _filter(requests, together)
        lacking |= together
    held = np.zeros(hosts.count, dtype=np.bool_)
    for row in hosts.devices.rows:
        held[row] = not lacking[row] and hosts.devices.allot(row, requests) is None
    words = f"have {_asked(requests)} {DEVICES_HELD}"
    refusal = Refusal("devices held", f"does not {words}", f"do not {words}", _REMEDY)
    yield Filter(refusal, held, room=True, told=lambda row: _told(hosts, row, requests, refusal))


_REMEDY = "have a task that holds one end, ask for fewer, or give {host} another"


def _filter(requests: Requests, lacks: Flags) -> Filter:
    words = f"have {_asked(requests)}"
    remedy = "give {host} such a device with a CDI specification (`fairway node show {host}` lists those it has)"
    return Filter(Refusal(f"devices {_asked(requests)}", f"does not {words}", f"do not {words}", remedy), lacks)


def _lacking(hosts: Hosts, requests: Requests) -> Flags:
    lacks = np.ones(hosts.count, dtype=np.bool_)
    for row in hosts.devices.rows:
        lacks[row] = not hosts.devices.possible(row, requests)
    return lacks


def _asked(requests: Requests) -> str:
    return " and ".join(dict.fromkeys(request_words(request) for request in requests))


def _told(hosts: Hosts, row: int, requests: Requests, refusal: Refusal) -> Refusal:
    """With who holds what on that host."""
    found = [
        f"{name} by {names_text([holder.task for holder in holders], 'tasks', HOLDERS_SHOWN_MAX)}"
        for name, holders in hosts.devices.holders_of(row, requests)
    ]
    more = [f"{len(found) - DEVICES_SHOWN_MAX} more"] if len(found) > DEVICES_SHOWN_MAX else []
    words = f"{refusal.verb_one}: {', '.join(found[:DEVICES_SHOWN_MAX] + more)}"
    return Refusal(refusal.kind, words, refusal.verb_many, refusal.remedy)
