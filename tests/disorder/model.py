"""What the cluster was told and said yes to: the state that it is to be in when all is quiet.

One client at a time changes an app, or a host, so what is noted here has one order; different apps and hosts change at
the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from proto import objects_pb2 as objects
from tests.disorder.apps import App, Wanted, mark_of


@dataclass
class AppModel:
    """One name, whether or not there is an app of it now. `port`: the first of its own."""

    name: str
    port: int
    services: dict[str, Wanted] = field(default_factory=dict)  # empty: there is no such app
    # Service -> version -> as it was asked for: what can be gone back to.
    versions: dict[str, dict[str, Wanted]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deployed(self, services: App) -> None:
        for name, wanted in services.items():
            self.versions.setdefault(name, {})[wanted.version] = wanted
        self.services = dict(services)

    def scaled(self, service: str, replicas: int) -> None:
        self.services[service] = replace(self.services[service], replicas=replicas)

    def removed(self) -> None:
        self.services = {}

    def service_removed(self, service: str) -> None:
        del self.services[service]

    def told(self, service: objects.Service) -> None:
        """The cluster showed the service as it will be, after a way back."""
        name = service.meta.name
        _, version, _ = mark_of(service.spec.container.environment)
        self.services[name] = replace(self.versions[name][version], replicas=service.spec.replicas)


@dataclass
class HostModel:
    """What operators said of one host."""

    name: str
    availability: objects.Availability.ValueType = objects.AVAILABILITY_ACTIVE
    bay: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Model:
    """`names`: of the apps that there may be; `port`: the first of ten for each."""

    def __init__(self, names: list[str], hosts: list[str], port: int) -> None:
        self.apps = [AppModel(name, port + 10 * number) for number, name in enumerate(names)]
        self.hosts = [HostModel(host) for host in hosts]
        self._count = 0
        self._lock = threading.Lock()

    def new_version(self) -> str:
        with self._lock:
            self._count += 1
            return f"v{self._count}"

    def services(self) -> dict[str, Wanted]:
        """APP/NAME -> what is wanted; while no client works."""
        return {f"{app.name}/{name}": wanted for app in self.apps for name, wanted in app.services.items()}

    def app(self, name: str) -> AppModel:
        return next(app for app in self.apps if app.name == name)

    def versions(self) -> dict[str, dict[str, Wanted]]:
        """APP/NAME -> version -> as it was asked for."""
        return {f"{app.name}/{name}": known for app in self.apps for name, known in app.versions.items()}

    def at(self, app: str, service: str, version: str) -> Wanted | None:
        """A version that was asked for; None: it is none of ours."""
        return self.versions().get(f"{app}/{service}", {}).get(version)


@contextmanager
def held(one: AppModel | HostModel) -> Iterator[bool]:
    """Whether nobody else changes it; if so, nobody does meanwhile."""
    got = one.lock.acquire(blocking=False)
    try:
        yield got
    finally:
        if got:
            one.lock.release()
