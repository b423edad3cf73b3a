"""What a random app is, how its next version differs, and its Compose file. Pure.

A service's task says in its environment which service and version it is of (`mark_of`), so that what runs can be
compared with what was asked for without asking the cluster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

REPLICATED, STATEFUL, GLOBAL, JOB, GLOBAL_JOB = "replicated", "stateful", "global", "job", "global-job"
KINDS = (REPLICATED,) * 4 + (STATEFUL,) * 2 + (GLOBAL, JOB, JOB, GLOBAL_JOB)
BAYS = ("a", "b")
CANARY, BLUE_GREEN = "canary", "blue-green"
REPLICAS_MAX = 4
SERVICES_MAX = 3
NAMES = ("one", "two", "three", "four", "five")
SECRET = "DISORDER_SECRET"
LOCAL_FIRST = "local-first"
NEVER = "0 3 31 12 *"
_MARK = "DISORDER"


@dataclass(frozen=True)
class Wanted:
    """One service as an operator asked for it."""

    kind: str
    version: str  # unique in a run
    replicas: int = 1  # of a job: completions
    bay: str = ""  # of hosts that it is for
    per_node_max: int = 0
    serves: bool = False  # listens, so that readiness waits for it
    published: int = 0
    host_mode: bool = False
    dnsrr: bool = False
    volume: bool = False
    files: bool = False  # a secret and a config
    healthcheck: bool = False
    network: str = "front"
    strategy: str = ""
    update: tuple[tuple[str, object], ...] = ()
    balance: str = ""
    scheduled: bool = False  # of a job: for a moment that does not come
    breaks: bool = False  # its tasks fail

    @property
    def is_job(self) -> bool:
        return self.kind in (JOB, GLOBAL_JOB)

    @property
    def alone(self) -> bool:
        """No two of its tasks may hold one volume."""
        return self.kind == STATEFUL


App = Mapping[str, Wanted]  # by name of the service


def random_app(choose: random.Random, version: str, port: int) -> dict[str, Wanted]:
    """`port`: the first of as many as NAMES has names."""
    names = choose.sample(NAMES, choose.randint(1, SERVICES_MAX))
    return {name: _random_service(choose, choose.choice(KINDS), version, port + NAMES.index(name)) for name in names}


def next_version(choose: random.Random, app: App, version: str, port: int) -> dict[str, Wanted]:
    """The app with something about it changed: services come, go, and change."""
    after = dict(app)
    for name in choose.sample(sorted(app), choose.randint(1, len(app))):
        after[name] = _random_service(choose, app[name].kind, version, port + NAMES.index(name))
        if app[name].replicas and choose.random() < 0.5:
            after[name] = replace(after[name], replicas=app[name].replicas)
    if len(after) > 1 and choose.random() < 0.15:
        del after[choose.choice(sorted(after))]
    if len(after) < SERVICES_MAX and choose.random() < 0.15:
        name = choose.choice([each for each in NAMES if each not in after])
        after[name] = _random_service(choose, choose.choice(KINDS), version, port + NAMES.index(name))
    return after


def mended(app: App, services: Collection[str], version: str) -> dict[str, Wanted]:
    """The app with these of its services such that their tasks do not fail."""
    return {
        name: replace(wanted, breaks=False, version=version) if name in services else wanted
        for name, wanted in app.items()
    }


def _random_service(choose: random.Random, kind: str, version: str, port: int) -> Wanted:
    def maybe(share: float) -> bool:
        return choose.random() < share

    wanted = Wanted(
        kind,
        version,
        replicas=choose.randint(1, REPLICAS_MAX),
        files=maybe(0.2),
        network=choose.choice(["front", "front", "back"]),
        breaks=maybe(0.1),
    )
    if wanted.is_job:
        return replace(wanted, scheduled=maybe(0.3), replicas=choose.randint(1, 3) if kind == JOB else 1)
    wanted = replace(wanted, serves=maybe(0.5), volume=kind == STATEFUL or maybe(0.15), healthcheck=maybe(0.15))
    if kind == STATEFUL:
        return replace(wanted, replicas=choose.randint(1, 3))
    if not wanted.volume:
        wanted = replace(wanted, bay=choose.choice([*BAYS, "", "", "", ""]))
    if wanted.serves:
        wanted = replace(wanted, published=port if maybe(0.5) else 0, balance=_balance(choose))
        wanted = replace(wanted, dnsrr=not wanted.published and maybe(0.3))
    if kind == GLOBAL:
        return replace(wanted, host_mode=bool(wanted.published) and maybe(0.3), update=_update(choose))
    if not wanted.volume:
        wanted = replace(wanted, per_node_max=choose.choice([0, 0, 0, 1, 2]))
        wanted = replace(wanted, strategy=choose.choice(["", "", "", CANARY, BLUE_GREEN]))
    update = _update(choose)
    if wanted.strategy == BLUE_GREEN:
        update = tuple(item for item in update if item[0] != "order")
        wanted = replace(wanted, per_node_max=0)
    return replace(wanted, update=update)


def _balance(choose: random.Random) -> str:
    return choose.choice(["", "", "round-robin", "source-hash", LOCAL_FIRST])


def _update(choose: random.Random) -> tuple[tuple[str, object], ...]:
    if choose.random() < 0.3:
        return ()
    said: dict[str, object] = {"parallelism": choose.choice([0, 1, 2])}
    if choose.random() < 0.4:
        said["order"] = choose.choice(["start-first", "stop-first"])
    if choose.random() < 0.7:
        said["failure_action"] = choose.choice(["pause", "rollback", "rollback", "continue"])
    if choose.random() < 0.3:
        said["monitor"] = "1s"
    return tuple(sorted(said.items()))


def compose(name: str, app: App) -> str:
    """The app's Compose file, as JSON, which is YAML. Its secret is the variable SECRET."""
    document: dict[str, Any] = {
        "name": name,
        "services": {service: _service(name, service, wanted) for service, wanted in app.items()},
        "networks": {wanted.network: {} for wanted in app.values()},
        "volumes": {_volume(service): {} for service, wanted in app.items() if wanted.volume},
    }
    if any(wanted.files for wanted in app.values()):
        newest = max(wanted.version for wanted in app.values() if wanted.files)
        document["secrets"] = {"key": {"environment": SECRET}}
        document["configs"] = {"words": {"content": newest}}
    return json.dumps(document)


def _volume(service: str) -> str:
    return f"data-{service}"


def mark_of(environment: Mapping[str, str]) -> tuple[str, str, bool]:
    """(service as APP/NAME, version, whether its volume may have one holder at a time); empty where it is none of
    ours."""
    service, _, rest = environment.get(_MARK, "").partition(" ")
    version, _, alone = rest.partition(" ")
    return service, version, alone == "alone"


def _service(app: str, name: str, wanted: Wanted) -> dict[str, Any]:
    found: dict[str, Any] = {
        "image": "static-web:1",
        "environment": {_MARK: f"{app}/{name} {wanted.version} {'alone' if wanted.alone else 'any'}"},
        "stop_signal": "SIGKILL",
        "stop_grace_period": "1s",
        "networks": [wanted.network],
        "deploy": _deploy(wanted),
    }
    extension: dict[str, Any] = {}
    if wanted.is_job:
        found["command"] = ["sh", "-c", f"sleep 0.3; exit {3 if wanted.breaks else 0}"]
        if wanted.scheduled:
            extension["schedule"] = {"cron": NEVER}
    elif wanted.breaks:
        found["command"] = ["sh", "-c", "sleep 0.2; exit 3"]
    elif not wanted.serves:
        found["command"] = ["sleep", "100000"]
    if wanted.serves:
        target = {"target": 8000, "published": str(wanted.published), "mode": "host" if wanted.host_mode else "ingress"}
        found |= {"ports": [target]} if wanted.published else {"expose": ["8000"]}
    if wanted.volume:
        found["volumes"] = [f"{_volume(name)}:/data"]
    if wanted.files:
        found |= {"secrets": ["key"], "configs": ["words"]}
    if wanted.healthcheck:
        found["healthcheck"] = {"test": ["CMD", "true"], "interval": "5s", "start_interval": "200ms"}
    if wanted.kind == STATEFUL:
        extension["stateful"] = True
    if wanted.balance:
        local = wanted.balance == LOCAL_FIRST
        extension["balance"] = {"local_first": True} if local else {"policy": wanted.balance}
    if wanted.strategy == CANARY:
        extension["rollout"] = {"strategy": CANARY, "steps": [{"tasks": 1}, {"share": "50%", "wait": "1s"}]}
    elif wanted.strategy == BLUE_GREEN:
        extension["rollout"] = {"strategy": BLUE_GREEN, "keep": "2s"}
    return found | ({"x-fairway": extension} if extension else {})


def _deploy(wanted: Wanted) -> dict[str, Any]:
    modes = {GLOBAL: "global", JOB: "replicated-job", GLOBAL_JOB: "global-job"}
    found: dict[str, Any] = {"mode": modes[wanted.kind]} if wanted.kind in modes else {}
    if wanted.kind not in (GLOBAL, GLOBAL_JOB):
        found["replicas"] = wanted.replicas
    if wanted.is_job:
        found["restart_policy"] = {"max_attempts": 1, "delay": "100ms"}
    placement: dict[str, Any] = {}
    if wanted.bay:
        placement["constraints"] = [f"node.labels.bay == {wanted.bay}"]
    if wanted.per_node_max:
        placement["max_replicas_per_node"] = wanted.per_node_max
    if wanted.dnsrr:
        found["endpoint_mode"] = "dnsrr"
    if wanted.update:
        found["update_config"] = dict(wanted.update)
    return found | ({"placement": placement} if placement else {})
