"""From a query and an asker to the packets of the answer, and a store of such packets ready to be sent."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from net import dns_message as message
from net.desired_changes import Change, DesiredIndex
from net.dns_message import MalformedMessage, Query, Record
from net.dns_names import Asker, NameIndex, Outcome, Place, Resolution
from net.model import DesiredNetwork

SERVICE_TTL_SECONDS = 5  # a virtual address stays as long as its service
TASK_TTL_SECONDS = 1
NEGATIVE_TTL_SECONDS = 1  # what is missing may be deployed any moment
ADDRESSES_PER_ANSWER_MAX = 16
SERVICES_PER_ANSWER_MAX = 64
ORDERS_MAX = 16  # answers with several addresses are kept in so many orders
READY_BYTES_MAX = 8 << 20
READY_QUERY_BYTES_MAX = 300
_ENTRY_BYTES = 250  # beside the packets themselves

_CODES = {
    Outcome.FOUND: message.NO_ERROR,
    Outcome.MISSING: message.NAME_ERROR,
    Outcome.UNKNOWN_ASKER: message.SERVER_FAILURE,
    Outcome.REFUSED: message.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Passed:
    """A query that others have to answer."""

    query: Query
    servers: tuple[str, ...]  # empty: the host's
    ours_if_unanswered: bool


# All of an answer but its identifier, in one or several orders of its addresses.
Packets = tuple[bytes, ...]


@dataclass
class Ready:
    """Answers over UDP to what was asked before, by everything of the query but its identifier.

    Thrown away as a whole with every change of names, and when it is full.
    """

    of_asker: dict[Asker, dict[bytes, Packets]] = field(default_factory=dict)
    size_bytes: int = 0


class Answers:
    """The names of the cluster as DNS shows them; any thread may ask."""

    def __init__(self, seed: int | None = None) -> None:
        self.ready = Ready()
        self._names = NameIndex()
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - spreads load, keeps no secret

    def advance(self, index: DesiredIndex, desired: DesiredNetwork) -> Change:
        """Moves `index`, which nobody else may move, on to `desired`, and tells what that changed.

        What is asked after its return is answered from that.
        """
        with self._lock:  # the threads that answer read the index, too
            change = index.advance(desired)
            if change:
                self._names.advance(desired, index, change)
                self.ready = Ready()
            return change

    def ready_for(self, address: str) -> tuple[Ready, dict[bytes, Packets] | None]:
        """Where the ready answers for an asker are; None for one that is not known."""
        with self._lock:
            asker = self._names.asker(address)
            ready = self.ready
            return ready, ready.of_asker.setdefault(asker, {}) if isinstance(asker, Asker) else None

    def answer(self, data: bytes, address: str, *, tcp: bool = False) -> Packets | Passed | None:
        """None where there is nothing to answer to. Over UDP the answer is kept ready for the next asker."""
        try:
            query = message.read_query(data)
        except MalformedMessage:
            error = message.write_error(data, message.FORMAT_ERROR)
            return None if error is None else (error[2:],)
        if (code := _unacceptable(query)) is not None:
            return (message.write_response(query, code, authoritative=False)[2:],)
        with self._lock:
            asker = self._names.asker(address)
            resolution = self._names.resolve(query.name, query.kind, asker)
            if resolution.outcome is Outcome.FOREIGN and isinstance(asker, Asker) and asker.closed:
                resolution = Resolution(Outcome.MISSING)
            if resolution.outcome is Outcome.FOREIGN:
                servers = asker.servers if isinstance(asker, Asker) else ()
                return Passed(query, servers, resolution.ours_if_unanswered)
            if message.TYPE_META_FIRST <= query.kind < message.TYPE_ANY:
                return (message.write_response(query, message.REFUSED)[2:],)
            packets = self._packets(query, resolution, message.MESSAGE_BYTES_MAX if tcp else query.udp_bytes_max)
            if isinstance(asker, Asker) and not tcp and len(data) <= READY_QUERY_BYTES_MAX:
                self._keep(asker, data[2:], packets)
            return packets

    def _keep(self, asker: Asker, key: bytes, packets: Packets) -> None:
        ready = self.ready
        ready.of_asker.setdefault(asker, {})[key] = packets
        ready.size_bytes += len(key) + sum(map(len, packets)) + _ENTRY_BYTES
        if ready.size_bytes > READY_BYTES_MAX:
            self.ready = Ready()

    def _packets(self, query: Query, resolution: Resolution, bytes_max: int) -> Packets:
        if resolution.services and query.kind in (message.TYPE_SRV, message.TYPE_ANY):
            return (self._services(query, resolution, bytes_max)[2:],)
        places = resolution.places
        if len(places) > 1:
            orders = min(len(places), ORDERS_MAX)
            first = self._random.sample(places, orders)
            mixed = (self._mixed(place, places) for place in first)
            return tuple(_addresses(query, resolution, order, bytes_max)[2:] for order in mixed)
        return (_addresses(query, resolution, places, bytes_max)[2:],)

    def _mixed(self, first: Place, places: Sequence[Place]) -> list[Place]:
        others = [each for each in places if each is not first]
        return [first, *self._random.sample(others, len(others))]

    def _services(self, query: Query, resolution: Resolution, bytes_max: int) -> bytes:
        """SRV records, with the addresses of their targets where there is room."""
        chosen = list(resolution.services)
        self._random.shuffle(chosen)
        answers, additional = [], []
        for place, port in chosen[:SERVICES_PER_ANSWER_MAX]:
            ttl_seconds = TASK_TTL_SECONDS if place.task else SERVICE_TTL_SECONDS
            answers.append(message.service_record(place.name, port, ttl_seconds))
            owner, both = message.write_name(place.name), filter(None, (place.address, place.address_ipv6))
            additional += [message.address_record(address, ttl_seconds, owner) for address in both]
        for more in (additional, []):
            response = message.write_response(query, message.NO_ERROR, answers, additional=more)
            if len(response) <= bytes_max:
                return response
        return message.truncated(query)


def _addresses(query: Query, resolution: Resolution, places: Sequence[Place], bytes_max: int) -> bytes:
    """As many addresses as fit, rather than none and the news that they did not fit."""
    ttl_seconds = TASK_TTL_SECONDS if any(each.task for each in places) else SERVICE_TTL_SECONDS
    records: list[Record] = []
    if query.kind in (message.TYPE_A, message.TYPE_ANY):
        records += [message.address_record(each.address, ttl_seconds) for each in places]
    if query.kind == message.TYPE_AAAA:
        records += [message.address_record(each.address_ipv6, ttl_seconds) for each in places if each.address_ipv6]
    if query.kind in (message.TYPE_PTR, message.TYPE_ANY) and resolution.pointer:
        records.append(Record(message.TYPE_PTR, message.write_name(resolution.pointer), TASK_TTL_SECONDS))
    if query.kind == message.TYPE_SOA and resolution.zone and query.name == resolution.zone:
        records.append(message.authority_record(resolution.zone, NEGATIVE_TTL_SECONDS, message.THE_QUESTION))
    if not records:
        code = _CODES[resolution.outcome]
        known = code in (message.NO_ERROR, message.NAME_ERROR)
        authority = [message.authority_record(resolution.zone, NEGATIVE_TTL_SECONDS)] if known else []
        response = message.write_response(query, code, authority=authority, authoritative=known)
        return response if len(response) <= bytes_max else message.truncated(query)
    records = records[:ADDRESSES_PER_ANSWER_MAX]
    room = bytes_max - 12 - len(query.question) - (11 if query.edns else 0)  # header, question, EDNS
    record_bytes = len(records[0].data) + 12
    return message.write_response(query, message.NO_ERROR, records[: max(1, room // record_bytes)])


def _unacceptable(query: Query) -> int | None:
    """The response code of what is understood and still gets no answer."""
    if query.edns and query.edns_version:
        return message.BAD_VERSION
    if not query.standard:
        return message.NOT_IMPLEMENTED
    if query.record_class != message.CLASS_IN:
        return message.REFUSED
    return None
