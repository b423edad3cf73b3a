"""Which name means what to whom; pure, and as incremental as the balancers.

Names of an asker's own app: SERVICE, an alias, SLOT.SERVICE and SERVICE.SLOT (one task), tasks.SERVICE (all
ready tasks); of another app the same with .APP behind them; all of them also below the cluster's domain.
An asker sees what shares a network with it; hosts see everything.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from net.addresses import GATEWAY_ADDRESS
from net.desired_changes import Change, DesiredIndex
from net.model import DesiredNetwork, Endpoint, Frontend

ADDRESSES_PER_ANSWER_MAX = 24  # fits 512 bytes


class Outcome(enum.Enum):
    FOUND = "found"  # addresses may still be none: the name exists, nothing stands behind it
    MISSING = "missing"  # a name of ours that nobody has
    FOREIGN = "foreign"  # for the upstream servers
    UNKNOWN_ASKER = "unknown asker"  # a task that is not known here (yet): ask again
    REFUSED = "refused"  # asker from outside


@dataclass(frozen=True, slots=True)
class Resolution:
    outcome: Outcome
    addresses: tuple[str, ...] = ()
    name: str = ""  # the answer to a reverse look-up


@dataclass(frozen=True, slots=True)
class _Asker:
    networks: frozenset[str] | None  # None: a host, which sees all
    apps: frozenset[str]


class NameIndex:
    """Moves on with each desired network; `resolve` takes some microseconds."""

    def __init__(self) -> None:
        self._index = DesiredIndex()
        self._domain = ""
        self._pools: tuple[ipaddress.IPv4Network, ...] = ()
        self._hosts: set[str] = {GATEWAY_ADDRESS}
        self._names: dict[tuple[str, str], set[str]] = defaultdict(set)  # (app, name) -> service ids
        self._apps: dict[str, set[str]] = defaultdict(set)  # app -> service ids
        self._named: dict[str, list[tuple[str, str]]] = {}
        self._by_address: dict[str, Endpoint] = {}
        self._addresses: dict[str, list[str]] = {}
        self._local: dict[str, tuple[str, ...]] = {}

    def advance(self, desired: DesiredNetwork, index: DesiredIndex, change: Change) -> None:
        """`index` is already at `desired`; `change` is what that changed."""
        self._index = index
        self._domain = desired.config.dns_domain.strip(".").lower()
        if change.settings or change.hosts:
            pools = (desired.config.host_pool, desired.config.vip_pool)
            self._pools = tuple(ipaddress.IPv4Network(pool) for pool in pools)
            hosts = (desired.local, *desired.hosts)
            self._hosts = {GATEWAY_ADDRESS}
            self._hosts.update(host.tunnel_address for host in hosts)
            self._hosts.update(host.address for host in hosts)
        if change.tasks:
            self._local = {task.address: task.networks for task in index.tasks.values()}
        for service_id in change.services:
            self._forget(service_id)
        for service_id in change.services:
            self._learn(service_id)

    def resolve(self, name: str, asker_address: str, turn: int = 0) -> Resolution:
        """The addresses of a name; `turn` rotates them, so that askers spread."""
        asker = self._asker(asker_address)
        if asker is None:
            inside = self._in_pools(asker_address)
            if not inside:
                return Resolution(Outcome.REFUSED)
        relative, own = self._relative(name)
        if asker is None:
            own = own or "." not in relative
            return Resolution(Outcome.UNKNOWN_ASKER if own else Outcome.FOREIGN)
        found = self._find(relative, asker)
        if found is not None:
            return Resolution(Outcome.FOUND, _rotated(found, turn))
        last = relative.rsplit(".", 1)[-1]
        if own or "." not in relative or self._visible(self._apps.get(last, ()), asker):
            return Resolution(Outcome.MISSING)
        return Resolution(Outcome.FOREIGN)

    def reverse(self, name: str, asker_address: str) -> Resolution:
        """The name of a task from `D.C.B.A.in-addr.arpa`."""
        labels = name.removesuffix(".in-addr.arpa").split(".")
        address = ".".join(reversed(labels))
        asker = self._asker(asker_address)
        if len(labels) != 4 or not self._in_pools(address):
            refused = asker is None and not self._in_pools(asker_address)
            return Resolution(Outcome.REFUSED if refused else Outcome.FOREIGN)
        if asker is None:
            return Resolution(Outcome.UNKNOWN_ASKER)
        endpoint = self._by_address.get(address)
        if endpoint is None or not _shares(endpoint.networks, asker):
            return Resolution(Outcome.MISSING)
        frontend = self._index.frontends.get(endpoint.service_id)
        app = f".{frontend.app}" if frontend else ""
        return Resolution(Outcome.FOUND, name=f"{endpoint.task_name}{app}.{self._domain}")

    def _relative(self, name: str) -> tuple[str, bool]:
        """The name without the cluster's domain, and whether it was below that."""
        name = name.rstrip(".").lower()
        if self._domain and (name == self._domain or name.endswith("." + self._domain)):
            return name[: -len(self._domain)].rstrip("."), True
        return name, False

    def _find(self, name: str, asker: _Asker) -> list[str] | None:
        """Addresses of a relative name: of the asker's own apps first, then with an app at its end."""
        for app in sorted(asker.apps):
            found = self._find_in_app(name, app, asker)
            if found is not None:
                return found
        head, _, app = name.rpartition(".")
        return self._find_in_app(head, app, asker) if head else None

    def _find_in_app(self, name: str, app: str, asker: _Asker) -> list[str] | None:
        services = self._visible(self._names.get((app, name), ()), asker)
        if services:
            return [address for each in services for address in self._of_service(each, asker)]
        first, _, rest = name.partition(".")
        if first == "tasks" and rest:
            services = self._visible(self._names.get((app, rest), ()), asker)
            if services:
                return [address for each in services for address in self._ready(each, asker)]
        for service, slot in ((rest, first), (name.rpartition(".")[0], name.rpartition(".")[2])):
            if service and slot.isdecimal():
                for each in self._visible(self._names.get((app, service), ()), asker):
                    found = self._of_task(each, slot, asker)
                    if found:
                        return found
        return None

    def _visible(self, service_ids: Iterable[str], asker: _Asker) -> list[Frontend]:
        frontends = (self._index.frontends.get(each) for each in sorted(service_ids))
        return [each for each in frontends if each is not None and _shares(each.networks, asker)]

    def _of_service(self, frontend: Frontend, asker: _Asker) -> list[str]:
        return [frontend.vip] if frontend.vip else self._ready(frontend, asker)

    def _ready(self, frontend: Frontend, asker: _Asker) -> list[str]:
        endpoints = self._index.endpoints_of(frontend.service_id)
        return sorted(each.address for each in endpoints if each.ready and _shares(each.networks, asker))

    def _of_task(self, frontend: Frontend, slot: str, asker: _Asker) -> list[str]:
        """A task's address whether it is ready or not; while one replaces another, the ready one first."""
        name = f"{frontend.service}.{slot}".lower()
        found = [
            each
            for each in self._index.endpoints_of(frontend.service_id)
            if each.task_name.lower() == name and _shares(each.networks, asker)
        ]
        ready = [each.address for each in found if each.ready]
        return ready or [each.address for each in found]

    def _asker(self, address: str) -> _Asker | None:
        if address in self._hosts or address.startswith("127."):
            return _Asker(None, frozenset())
        endpoint = self._by_address.get(address)
        networks = self._local.get(address) or (endpoint.networks if endpoint else None)
        if networks is None:
            return None
        known = (self._index.networks.get(each) for each in networks)
        apps = {each.app.lower() for each in known if each is not None}
        frontend = self._index.frontends.get(endpoint.service_id) if endpoint else None
        if frontend is not None:
            apps = {frontend.app.lower()}
        return _Asker(frozenset(networks), frozenset(apps))

    def _in_pools(self, address: str) -> bool:
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            return False
        return any(parsed in pool for pool in self._pools)

    def _forget(self, service_id: str) -> None:
        for key in self._named.pop(service_id, ()):
            _drop(self._names, key, service_id)
            _drop(self._apps, key[0], service_id)
        for address in self._addresses.pop(service_id, ()):
            self._by_address.pop(address, None)

    def _learn(self, service_id: str) -> None:
        endpoints = self._index.endpoints_of(service_id)
        for endpoint in endpoints:
            self._by_address[endpoint.address] = endpoint
        if endpoints:
            self._addresses[service_id] = [endpoint.address for endpoint in endpoints]
        frontend = self._index.frontends.get(service_id)
        if frontend is None:
            return
        app = frontend.app.lower()
        names = {frontend.service.lower(), *(alias.rstrip(".").lower() for _, alias in frontend.aliases)}
        self._named[service_id] = [(app, name) for name in names]
        self._apps[app].add(service_id)
        for name in names:
            self._names[app, name].add(service_id)


def _shares(networks: Iterable[str], asker: _Asker) -> bool:
    return asker.networks is None or not asker.networks.isdisjoint(networks)


def _drop(index: dict[tuple[str, str], set[str]] | dict[str, set[str]], key: object, service_id: str) -> None:
    members = index.get(key)  # type: ignore[call-overload]
    if members is not None:
        members.discard(service_id)
        if not members:
            del index[key]  # type: ignore[arg-type]


def _rotated(addresses: list[str], turn: int) -> tuple[str, ...]:
    if not addresses:
        return ()
    start = turn % len(addresses)
    return tuple((addresses[start:] + addresses[:start])[:ADDRESSES_PER_ANSWER_MAX])
