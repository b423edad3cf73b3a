"""Which name means what to whom; pure, and as incremental as the balancers.

Names of an asker's own app: SERVICE, an alias, SLOT.SERVICE and SERVICE.SLOT (one task), tasks.SERVICE (all
ready tasks), and _PORT._PROTOCOL before each of them (SRV); of another app the same with .APP behind them, of
another tenant with .APP.TENANT; all of them also below the cluster's domain. An asker sees what shares a network
with it, aliases only in their network, and what policies let its service reach on some port; hosts see everything.

What exists without having data, such as an app's name, is FOUND without places: nothing below it may be
denied with it (RFC 8020).
"""

from __future__ import annotations

import enum
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from net import dns_zones as zones
from net.addresses import GATEWAY_ADDRESS, ipv6_of
from net.desired_changes import Change, DesiredIndex
from net.dns_message import TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_SRV
from net.model import DesiredNetwork, Endpoint, Frontend, LocalTask, Port
from net.policy_reach import PolicyReach

_HOST_KINDS = frozenset({TYPE_A, TYPE_AAAA, TYPE_SRV, TYPE_ANY, 64, 65})  # 64, 65: SVCB, HTTPS


class Outcome(enum.Enum):
    FOUND = "found"  # the name exists; there may be nothing behind it, or not of the type asked for
    MISSING = "missing"  # a name of ours that nobody has
    FOREIGN = "foreign"  # for the upstream servers
    UNKNOWN_ASKER = "unknown asker"  # a task that is not known here (yet): ask again
    REFUSED = "refused"  # asker from outside


@dataclass(frozen=True, slots=True)
class Asker:
    """Everything about an asker that its answers depend on."""

    networks: frozenset[str] | None  # None: a host, which sees all
    apps: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()  # upstream; empty: the host's
    closed: bool = False  # internal networks only, which have no way out: not by questions either
    reach: frozenset[str] = frozenset()  # ids of services that policies let it reach, beside those of its networks
    tenant: str = ""  # its own, in lower case, where it reaches any of those


@dataclass(frozen=True, slots=True)
class Place:
    """A service's virtual address, or a task."""

    name: str  # complete
    address: str
    address_ipv6: str  # empty: none within the networks that it shares with the asker
    task: bool
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    outcome: Outcome
    places: tuple[Place, ...] = ()
    services: tuple[tuple[Place, int], ...] = ()  # (place, port) of an SRV name
    pointer: str = ""  # the answer to a reverse look-up
    zone: str = ""  # what the authority of a negative answer is for
    ours_if_unanswered: bool = False  # FOREIGN, but below a name of ours: does not exist if nobody knows it


class NameIndex:
    """Moves on with each desired network; `resolve` takes some microseconds."""

    def __init__(self) -> None:
        self._index = DesiredIndex()
        self._domain = ""
        self._ipv6_prefix = ""
        self._pools: tuple[zones.Pool, ...] = ()
        self._hosts: set[str] = {GATEWAY_ADDRESS}
        # (app, name) -> service id -> networks that the name holds in; None: all of the service's
        self._names: dict[tuple[str, str], dict[str, frozenset[str] | None]] = defaultdict(dict)
        self._apps: dict[str, set[str]] = defaultdict(set)  # app -> service ids
        self._tenants: dict[str, dict[str, Frontend]] = defaultdict(dict)
        self._tenant_of: dict[str, str] = {}  # service id -> tenant
        self._named: dict[str, list[tuple[str, str]]] = {}
        self._by_vip: dict[str, str] = {}  # -> service id
        self._vips: dict[str, str] = {}
        self._by_address: dict[str, Endpoint] = {}
        self._addresses: dict[str, list[str]] = {}
        self._local: dict[str, LocalTask] = {}  # by address
        self._reach = PolicyReach()

    def advance(self, desired: DesiredNetwork, index: DesiredIndex, change: Change) -> None:
        """`index` is already at `desired`; `change` is what that changed."""
        self._index = index
        self._domain = desired.config.dns_domain.strip(".").lower()
        self._ipv6_prefix = desired.config.ipv6_prefix
        if change.settings or change.hosts:
            pools = (desired.config.host_pool, desired.config.vip_pool, desired.config.ipv6_prefix)
            self._pools = tuple(ipaddress.ip_network(pool) for pool in pools if pool)
            hosts = (desired.local, *desired.hosts)
            self._hosts = {GATEWAY_ADDRESS}
            self._hosts.update(host.tunnel_address for host in hosts)
            self._hosts.update(host.address for host in hosts)
        if change.tasks:
            self._local = {task.address: task for task in index.tasks.values()}
        self._reach.advance(desired, index, change)
        for service_id in change.services:
            self._forget(service_id)
        for service_id in change.services:
            self._learn(service_id)

    def asker(self, address: str) -> Asker | Outcome:
        """Who asks from an IPv4 address; UNKNOWN_ASKER or REFUSED where that cannot be said or is nobody of ours."""
        if address in self._hosts or address.startswith("127."):
            return Asker(None)
        endpoint, task = self._by_address.get(address), self._local.get(address)
        networks = (task.networks if task else ()) or (endpoint.networks if endpoint else ())
        if not networks:
            inside = any(ipaddress.ip_address(address) in pool for pool in self._pools)
            return Outcome.UNKNOWN_ASKER if inside else Outcome.REFUSED
        known = [found for each in networks if (found := self._index.networks.get(each)) is not None]
        apps = {each.app.lower() for each in known}
        closed = bool(known) and all(each.internal for each in known)
        servers = task.dns_servers if task else ()
        service_id = (task.service_id if task else "") or (endpoint.service_id if endpoint else "")
        frontend = self._index.frontends.get(service_id)
        if frontend is None:
            return Asker(frozenset(networks), tuple(sorted(apps)), servers, closed)
        reach = self._reach.of(service_id)
        tenant = frontend.tenant.lower() if reach else ""
        return Asker(frozenset(networks), (frontend.app.lower(),), servers, closed, reach, tenant)

    def resolve(self, name: str, kind: int, asker: Asker | Outcome) -> Resolution:
        """What a lower-case name without a dot at its end means; `kind` only decides what is asked of others."""
        if asker is Outcome.REFUSED:
            return Resolution(Outcome.REFUSED)
        if (addresses := zones.own_addresses(name)) is not None:
            return Resolution(Outcome.FOUND, (Place(name, addresses[0], addresses[1], False),), zone="localhost")
        if zones.never_exists(name):
            return Resolution(Outcome.MISSING)
        if name.endswith(".arpa"):
            return self._reverse(name, asker)
        relative, own = self._relative(name)
        zone = self._domain if own else ""
        last = relative.rpartition(".")[2]
        single = "." not in relative and relative != "" and kind in _HOST_KINDS
        if not isinstance(asker, Asker):
            unclear = own or single or last in self._apps or last in self._tenants
            return Resolution(Outcome.UNKNOWN_ASKER if unclear else Outcome.FOREIGN)
        if own and not relative:
            return Resolution(Outcome.FOUND, zone=zone)
        found = self._find(relative, asker, zone)
        if found is not None:
            return found
        if own or single:
            return Resolution(Outcome.MISSING, zone=zone)
        return Resolution(Outcome.FOREIGN, ours_if_unanswered=self._something_below(last, asker))

    def _reverse(self, name: str, asker: Asker | Outcome) -> Resolution:
        """The name of a task or service from its address's reverse name."""
        asked = zones.read_reverse(name)
        pool = next((pool for pool in self._pools if asked is not None and asked.within(pool)), None)
        if asked is None or pool is None:
            return Resolution(Outcome.FOREIGN)
        if not isinstance(asker, Asker):
            return Resolution(Outcome.UNKNOWN_ASKER)
        zone = zones.reverse_zone(name, pool)
        if not asked.whole:
            return Resolution(Outcome.FOUND, zone=zone)
        address = str(ipaddress.IPv4Address(int(asked.first) & 0xFFFFFFFF))
        networks: Iterable[str] = ()
        frontend, first = None, ""
        if (endpoint := self._by_address.get(address)) is not None:
            frontend = self._index.frontends.get(endpoint.service_id)
            networks, first = endpoint.networks, endpoint.task_name
        elif (service_id := self._by_vip.get(address)) is not None:
            frontend = self._index.frontends[service_id]
            networks, first = frontend.networks, frontend.service
        if frontend is None or not _reaches(frontend, networks, asker):
            return Resolution(Outcome.MISSING, zone=zone)
        if asked.first.version == 6 and not self._ipv6(address, networks, frontend, asker):
            return Resolution(Outcome.MISSING, zone=zone)
        return Resolution(Outcome.FOUND, pointer=self._complete(first, frontend, asker), zone=zone)

    def _relative(self, name: str) -> tuple[str, bool]:
        """The name without the cluster's domain, and whether it was below that."""
        if self._domain and (name == self._domain or name.endswith("." + self._domain)):
            return name[: -len(self._domain)].rstrip("."), True
        return name, False

    def _find(self, name: str, asker: Asker, zone: str) -> Resolution | None:
        """A relative name: of the asker's own apps first, then with an app at its end, then with app and tenant."""
        for app in asker.apps:
            if (found := self._find_in_app(name, app, asker, zone)) is not None:
                return found
        head, _, last = name.rpartition(".")
        if head and (found := self._find_in_app(head, last, asker, zone)) is not None:
            return found
        head, _, app = head.rpartition(".")
        if head:
            return self._find_in_app(head, f"{app}.{last}", asker, zone)
        if self._something_below(name, asker):
            return Resolution(Outcome.FOUND, zone=zone)  # SERVICE.APP is below it, or SERVICE.APP.TENANT
        return None

    def _find_in_app(self, name: str, app: str, asker: Asker, zone: str) -> Resolution | None:
        """`app`: also APP.TENANT."""
        places = self._places(name, app, asker)
        if places is not None:
            return Resolution(Outcome.FOUND, tuple(places), zone=zone)
        first, _, rest = name.partition(".")
        if first[:1] == "_":
            return self._find_service(first, rest, app, asker, zone)
        if name.isdecimal() and any(self._visible_of_app(app, asker)):
            return Resolution(Outcome.FOUND, zone=zone)  # SERVICE.SLOT is below it
        head, _, slot = name.rpartition(".")
        below = rest if first.isdecimal() or first == "tasks" else head if slot.isdecimal() else ""
        if below and self._visible(app, below, asker):
            return Resolution(Outcome.MISSING, zone=zone)  # a slot that the service does not have
        return None

    def _find_service(self, first: str, rest: str, app: str, asker: Asker, zone: str) -> Resolution | None:
        """`_PORT._PROTOCOL.NAME` (RFC 2782); PORT is a port's name or its number in the container."""
        protocol, _, name = rest.partition(".")
        if protocol[:1] != "_":  # _PROTOCOL.NAME is no service, but has some below it
            places = self._places(rest, app, asker) if rest else None
            return None if places is None else Resolution(Outcome.FOUND, zone=zone)
        places = self._places(name, app, asker) if name else None
        if places is None:
            return None
        found = tuple(
            (place, port.target)
            for place in places
            for port in place.ports
            if port.protocol == protocol[1:] and first[1:] in (port.name.lower(), str(port.target))
        )
        # Where no task is ready there is nothing to look at, and the name may well exist.
        return Resolution(Outcome.FOUND if found or not places else Outcome.MISSING, services=found, zone=zone)

    def _places(self, name: str, app: str, asker: Asker) -> list[Place] | None:
        """What stands behind a name of an app; None where there is no such name."""
        if services := self._visible(app, name, asker):
            return [place for each in services for place in self._of_service(each, asker)]
        first, _, rest = name.partition(".")
        if not rest:
            return None
        if first == "tasks" and (services := self._visible(app, rest, asker)):
            return [place for each in services for place in self._ready(each, asker)]
        head, _, last = name.rpartition(".")
        for service, slot in ((rest, first), (head, last)):
            if slot.isdecimal():
                for each in self._visible(app, service, asker):
                    if found := self._of_task(each, slot, asker):
                        return found
        return None

    def _visible(self, app: str, name: str, asker: Asker) -> list[Frontend]:
        app, _, tenant = app.partition(".")
        named = self._names.get((app, name))
        if not named:
            return []
        found = []
        for service_id in sorted(named):
            frontend, within = self._index.frontends.get(service_id), named[service_id]
            if frontend is None or not _is_called(frontend, tenant, asker):
                continue
            if _reaches(frontend, frontend.networks, asker) if within is None else _shares(within, asker):
                found.append(frontend)
        return found

    def _visible_of_app(self, app: str, asker: Asker) -> Iterator[bool]:
        app, _, tenant = app.partition(".")
        for service_id in self._apps.get(app, ()):
            frontend = self._index.frontends.get(service_id)
            yield (
                frontend is not None
                and _is_called(frontend, tenant, asker)
                and _reaches(frontend, frontend.networks, asker)
            )

    def _something_below(self, name: str, asker: Asker) -> bool:
        """Of an APP, APP.TENANT or TENANT."""
        if any(self._visible_of_app(name, asker)):
            return True
        return any(_reaches(each, each.networks, asker) for each in self._tenants.get(name, {}).values())

    def _of_service(self, frontend: Frontend, asker: Asker) -> list[Place]:
        if not frontend.vip:
            return self._ready(frontend, asker)
        ipv6 = self._ipv6(frontend.vip, frontend.networks, frontend, asker)
        return [Place(self._complete(frontend.service, frontend, asker), frontend.vip, ipv6, False, frontend.ports)]

    def _ready(self, frontend: Frontend, asker: Asker) -> list[Place]:
        endpoints = self._index.endpoints_of(frontend.service_id)
        found = [each for each in endpoints if each.ready and _reaches(frontend, each.networks, asker)]
        return [self._of_endpoint(each, frontend, asker) for each in sorted(found, key=lambda each: each.address)]

    def _of_task(self, frontend: Frontend, slot: str, asker: Asker) -> list[Place]:
        """A task whether it is ready or not; while one replaces another, the ready one."""
        name = f"{frontend.service}.{slot}".lower()
        found = [
            each
            for each in self._index.endpoints_of(frontend.service_id)
            if each.task_name.lower() == name and _reaches(frontend, each.networks, asker)
        ]
        ready = [each for each in found if each.ready]
        return [self._of_endpoint(each, frontend, asker) for each in ready or found]

    def _of_endpoint(self, endpoint: Endpoint, frontend: Frontend, asker: Asker) -> Place:
        ipv6 = self._ipv6(endpoint.address, endpoint.networks, frontend, asker)
        complete = self._complete(endpoint.task_name, frontend, asker)
        return Place(complete, endpoint.address, ipv6, True, frontend.ports)

    def _ipv6(self, address: str, networks: Iterable[str], frontend: Frontend, asker: Asker) -> str:
        """The IPv6 address beside an IPv4 one, where a network that is shared with the asker has IPv6.

        Who comes by a policy shares none: for it any of `networks` will do.
        """
        if not self._ipv6_prefix:
            return ""
        for each in networks:
            network = self._index.networks.get(each)
            if network is not None and not network.ipv6_disabled and _reaches(frontend, (each,), asker):
                return ipv6_of(self._ipv6_prefix, address)
        return ""

    def _complete(self, name: str, frontend: Frontend, asker: Asker) -> str:
        """A name by which the asker finds the same again."""
        tenant = f".{frontend.tenant}" if asker.tenant not in ("", frontend.tenant.lower()) else ""
        return f"{name}.{frontend.app}{tenant}.{self._domain}".rstrip(".").lower()

    def _forget(self, service_id: str) -> None:
        for key in self._named.pop(service_id, ()):
            self._names[key].pop(service_id, None)
            if not self._names[key]:
                del self._names[key]
            self._apps[key[0]].discard(service_id)
            if not self._apps[key[0]]:
                del self._apps[key[0]]
        tenant = self._tenant_of.pop(service_id, "")
        if self._tenants.get(tenant, {}).pop(service_id, None) is not None and not self._tenants[tenant]:
            del self._tenants[tenant]
        if self._by_vip.get(vip := self._vips.pop(service_id, "")) == service_id:
            del self._by_vip[vip]
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
        names: dict[str, frozenset[str] | None] = {}
        for network_id, alias in frontend.aliases:
            alias = alias.rstrip(".").lower()
            names[alias] = (names.get(alias) or frozenset()) | {network_id}
        names[frontend.service.lower()] = None
        self._named[service_id] = [(app, name) for name in names]
        self._apps[app].add(service_id)
        self._tenant_of[service_id] = tenant = frontend.tenant.lower()
        self._tenants[tenant][service_id] = frontend
        if frontend.vip:
            self._vips[service_id], self._by_vip[frontend.vip] = frontend.vip, service_id
        for name, within in names.items():
            self._names[app, name][service_id] = within


def _shares(networks: Iterable[str], asker: Asker) -> bool:
    return asker.networks is None or not asker.networks.isdisjoint(networks)


def _reaches(frontend: Frontend, networks: Iterable[str], asker: Asker) -> bool:
    """Whether a service, of which something is in these networks, is there for an asker."""
    return _shares(networks, asker) or frontend.service_id in asker.reach


def _is_called(frontend: Frontend, tenant: str, asker: Asker) -> bool:
    """Whether the asker calls a service by APP.`tenant`, or where that is empty by its app alone."""
    if tenant:
        return frontend.tenant.lower() == tenant
    return _shares(frontend.networks, asker) or frontend.tenant.lower() == asker.tenant
