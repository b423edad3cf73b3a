"""One run: clients and failures beside each other, then quiet, then a look at everything."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.cluster import Lab
from proto import objects_pb2 as objects
from tests.churn.counting import TaskCounter
from tests.churn.operator import Operator, Stuck
from tests.disorder import judging, sights, stored
from tests.disorder.clients import RETRY_SECONDS_MAX, Clients, change_host
from tests.disorder.finishing import activate, finish_step
from tests.disorder.holders import Watch
from tests.disorder.model import Model
from tests.torture.faults import Faults

FAULTS = ("power cut", "daemon killed", "containerd killed", "frozen", "partition", "one way partition")
HOLD_SECONDS = (1.0, 9.0)
CALM_SECONDS = (1.0, 8.0)
APPS = 8
CLIENTS = 4
RECOVERY_SECONDS_MAX = 90.0
QUIET_SECONDS_MAX = 120.0
BACK_SECONDS_MAX = 20.0
POLL_SECONDS = 1.0
SHORT_SECONDS = 0.2
TOLD_SECONDS, TOLD_MAX = 20.0, 5
BEFORE = ("", "tasks.")  # a service's name: its address, and those of its tasks
Say = Callable[[str], None]


@dataclass
class Result:
    """What was done, and what was wrong in the end, in words."""

    seed: int
    changes: int = 0
    seconds: float = 0.0
    quiet_seconds: float = 0.0  # from the last failure and change until all was as it should be
    tasks_started: int = 0
    looks_for_holders: int = 0
    holders_at_once: int = 0
    done: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    went_back_by_themselves: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def disorder(
    lab: Lab,
    changes: int,
    name: str,
    port: int,
    seed: int,
    say: Say,
    *,
    app_count: int = APPS,
    faults_max: float = math.inf,
    only: Collection[str] = FAULTS,
    hold_seconds: tuple[float, float] = HOLD_SECONDS,
    seconds_max: float = math.inf,
    back_seconds_max: float = BACK_SECONDS_MAX,
) -> Result:
    """Makes `changes` changes to apps whose names begin with `name`, beside failures of hosts, and judges the end.
    After `seconds_max` it comes to its end with as many as there were.

    The lab must have the image static-web, all hosts must vote, and nothing else may change in it meanwhile; it is
    left without the apps. `port`: the first of ten for each app. `back_seconds_max`: in which the cluster may go back
    from versions that fail; then they are mended. Raises Stuck where it cannot be carried out.
    """
    began = time.monotonic()
    result = Result(seed)
    sockets = [lab.socket(host) for host in lab.hosts()]
    model = Model([f"{name}-{number}" for number in range(1, app_count + 1)], lab.hosts(), port)
    operator = Operator(*sockets, retry_seconds_max=RETRY_SECONDS_MAX)
    counter = TaskCounter(sockets[0])
    watch = Watch(Lab.open(lab.name))
    clients = Clients(model, sockets, seed, CLIENTS, changes)
    faults = Faults(Lab.open(lab.name), {}, random.Random(seed), say, only, hold_seconds)
    try:
        clients.start()
        _fail(clients, faults, faults_max, began + seconds_max, random.Random(~seed))
        clients.stop()
        say(f"{clients.count} changes; {sum(clients.refused.values())} were not possible; now all is to be quiet")
        quiet = time.monotonic()
        result.wrong += clients.errors
        _whole(lab, operator)
        _finish(operator, model, back_seconds_max)
        looks, wrong = _settled(lab, model, name, say)
        result.went_back_by_themselves = judging.rolled_back(model.services(), looks)
        result.wrong += wrong
        result.quiet_seconds = time.monotonic() - quiet
        say(f"as asked for after {result.quiet_seconds:.0f} s" if not wrong else f"{len(wrong)} things are wrong")
        _remove(operator, model)
        result.wrong += [f"after all apps were removed: {each}" for each in _settled(lab, model, name, say)[1]]
    finally:
        clients.stop()
        watch.stop()
        counter.stop()
        operator.close()
    result.wrong += watch.found
    result.looks_for_holders, result.holders_at_once = watch.looks, watch.most
    result.changes, result.done, result.refused = clients.count, dict(clients.done), dict(clients.refused)
    result.faults, result.tasks_started = faults.counts, counter.started
    result.seconds = time.monotonic() - began
    return result


def _fail(clients: Clients, faults: Faults, count_max: float, until: float, choose: random.Random) -> None:
    """Failures as long as clients work, and no more than so many."""
    while clients.working and time.monotonic() < until:
        if sum(faults.counts.values()) < count_max:
            faults.one()
        pause = time.monotonic() + choose.uniform(*CALM_SECONDS)
        while clients.working and time.monotonic() < min(pause, until):
            time.sleep(SHORT_SECONDS)


def _whole(lab: Lab, operator: Operator) -> None:
    """Returns when every host is heard of again."""
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while True:
        silent = [node.meta.name for node in operator.nodes() if node.state != objects.NODE_STATE_READY]
        if not silent and all("fairwayd" in lab.process_ids(host) for host in lab.hosts()):
            return
        if time.monotonic() > deadline:
            raise Stuck(f"not ready {RECOVERY_SECONDS_MAX:.0f} s after the last failure: {', '.join(silent)}")
        time.sleep(SHORT_SECONDS)


def _finish(operator: Operator, model: Model, back_seconds_max: float) -> None:
    activate(operator, model)
    time.sleep(SHORT_SECONDS)
    back_until = time.monotonic() + back_seconds_max
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while time.monotonic() < deadline and not finish_step(operator, model, mend=time.monotonic() > back_until):
        time.sleep(POLL_SECONDS)


def _remove(operator: Operator, model: Model) -> None:
    for app in model.apps:
        operator.remove(app.name)
        app.removed()
    for host in model.hosts:
        change_host(operator, host, bay="")
    operator.wait_removed({app.name for app in model.apps}, QUIET_SECONDS_MAX)


def _settled(lab: Lab, model: Model, prefix: str, say: Say) -> tuple[stored.Stored, list[str]]:
    """The store, and what is wrong; looked at until nothing is, twice in a row, or the time is over."""
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    clean, told = 0, time.monotonic() + TOLD_SECONDS
    while True:
        store, wrong = _look(lab, model, prefix)
        clean = 0 if wrong else clean + 1
        if wrong and time.monotonic() > told:
            told = time.monotonic() + TOLD_SECONDS
            say(f"not yet as it was asked for, {len(wrong)} things: {'; '.join(wrong[:TOLD_MAX])}")
        if clean == 2 or (wrong and time.monotonic() > deadline):
            return store, wrong
        time.sleep(POLL_SECONDS)


def _look(lab: Lab, model: Model, prefix: str) -> tuple[stored.Stored, list[str]]:
    hosts = lab.hosts()
    wanted = model.services()
    # Below the cluster's domain hosts answer by themselves that there is no such name.
    domain = stored.read(lab, hosts[0]).all(objects.Cluster)[0].network.dns_domain
    places = [f"{service}.{app.name}.{domain}" for app in model.apps for service in app.versions]
    names = [before + place for place in places for before in BEFORE]
    with ThreadPoolExecutor(len(hosts)) as pool:
        seen = dict(zip(hosts, pool.map(lambda host: sights.look(lab, host, names), hosts), strict=True))
    stores = {host: stored.read(lab, host) for host in hosts}
    one = stores[hosts[0]]
    bays = {host.name: host.bay for host in model.hosts}
    wrong = judging.differences(wanted, model.versions(), bays, prefix, one, seen)
    for host, other in stores.items():
        if other.revision != one.revision:
            wrong.append(f"{host} stands at revision {other.revision}, {hosts[0]} at {one.revision}")
        elif table := stored.difference(one, other):
            wrong.append(f"the table {table} of {host} is not that of {hosts[0]}")
    return one, wrong
