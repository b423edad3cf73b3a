"""Asks the servers of the host's resolv.conf what is not ours to answer, and keeps answers briefly."""

from __future__ import annotations

import ipaddress
import logging
import random
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import trio

from net import dns_message as message
from net.addresses import GATEWAY_ADDRESS, PEER_DNS_ADDRESS
from net.dns_message import Query
from net.model import Counters

log = logging.getLogger(__name__)

OUTSTANDING_MAX = 256
ATTEMPTS_MAX = 2
ATTEMPT_SECONDS_MAX = 2.0
KEPT_SECONDS_MAX = 10
KEPT_ANSWERS_MAX = 2048
KEPT_ANSWER_BYTES_MAX = 4096
_SERVERS_MAX = 3
_RESOLV_CONF_CHECK_SECONDS = 5.0


class Upstream:
    """`servers` None: those of `/etc/resolv.conf`, read again when the file changes."""

    def __init__(
        self, counters: Counters, servers: Sequence[str] | None = None, file: Path = Path("/etc/resolv.conf")
    ) -> None:
        self._counters = counters
        self._fixed = None if servers is None else tuple(servers)
        self._file = file
        self._random = random.SystemRandom()
        self._kept: OrderedDict[tuple[bytes, int, bool], tuple[float, bytes]] = OrderedDict()
        self._outstanding = 0
        self._read: tuple[float, tuple[str, ...]] | None = None

    @property
    def follows_host(self) -> bool:
        """Whether the host's own resolv.conf says whom to ask."""
        return self._fixed is None

    def servers(self) -> tuple[str, ...]:
        if self._fixed is not None:
            return self._fixed
        now = trio.current_time()
        if self._read is None or now - self._read[0] > _RESOLV_CONF_CHECK_SECONDS:
            self._read = now, nameservers(read_resolv_conf(self._file))
        return self._read[1]

    async def ask(self, query: Query, data: bytes, *, tcp: bool) -> bytes:
        """The answer to the asker, with its identifier; SERVFAIL when no server answers in time."""
        key = (query.question.lower(), query.flags & 0x0110, query.edns)
        kept = self._kept_answer(key)
        if kept is not None and (tcp or len(kept) <= query.udp_bytes_max):
            return _as_answer_to(query, kept)
        if self._outstanding >= OUTSTANDING_MAX:
            self._counters.dns_refused_count += 1
            return message.write_response(query, message.SERVER_FAILURE)
        self._outstanding += 1
        try:
            answer = await self._ask_in_turn(query, data, tcp=tcp)
        finally:
            self._outstanding -= 1
        if answer is None:
            self._counters.dns_failure_count += 1
            return message.write_response(query, message.SERVER_FAILURE)
        self._keep(key, answer)
        return _as_answer_to(query, answer)

    async def _ask_in_turn(self, query: Query, data: bytes, *, tcp: bool) -> bytes | None:
        servers = self.servers()
        if not servers:
            return None
        fallback: bytes | None = None
        for attempt in range(ATTEMPTS_MAX):
            server = servers[attempt % len(servers)]
            identifier = self._random.randrange(65536)
            asked = struct.pack(">H", identifier) + data[2:]
            answer: bytes | None = None
            self._counters.dns_forwarded_count += 1
            with trio.move_on_after(ATTEMPT_SECONDS_MAX):
                try:
                    exchange = _ask_by_tcp if tcp else _ask_by_udp
                    answer = await exchange(server, query, asked, identifier)
                except (OSError, trio.BrokenResourceError) as error:
                    log.debug("name server %s: %s", server, error)
            if answer is None:
                continue
            if message.response_code(answer) not in (message.SERVER_FAILURE, message.REFUSED):
                return answer
            fallback = answer
        return fallback

    def _kept_answer(self, key: tuple[bytes, int, bool]) -> bytes | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= trio.current_time():
            del self._kept[key]
            return None
        return found[1]

    def _keep(self, key: tuple[bytes, int, bool], answer: bytes) -> None:
        seconds = message.lifetime_seconds(answer, KEPT_SECONDS_MAX)
        if not seconds or len(answer) > KEPT_ANSWER_BYTES_MAX:
            return
        self._kept[key] = trio.current_time() + seconds, answer
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_ANSWERS_MAX:
            self._kept.popitem(last=False)


def read_resolv_conf(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        log.warning("read %s: %s; names from outside the cluster will not resolve", file, error)
        return ""


def nameservers(text: str) -> tuple[str, ...]:
    """The first three name servers of a resolv.conf, never ourselves."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        if words[1] not in (GATEWAY_ADDRESS, PEER_DNS_ADDRESS):
            found.append(words[1])
    return tuple(found[:_SERVERS_MAX])


def search_domains(text: str) -> tuple[str, ...]:
    """The search domains of a resolv.conf; the last line that names some counts (resolv.conf(5))."""
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in ("search", "domain"):
            found = tuple(word for word in words[1:] if word != ".")
    return found


def _as_answer_to(query: Query, answer: bytes) -> bytes:
    """With the asker's identifier and its own letter case in the question."""
    return struct.pack(">H", query.identifier) + answer[2:12] + query.question + answer[12 + len(query.question) :]


async def _ask_by_udp(server: str, query: Query, data: bytes, identifier: int) -> bytes:
    family = trio.socket.AF_INET6 if ":" in server else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        await socket.connect((server, 53))
        await socket.send(data)
        while True:
            answer: bytes = await socket.recv(message.MESSAGE_BYTES_MAX)
            if message.is_response_to(query, answer, identifier):
                return answer


async def _ask_by_tcp(server: str, query: Query, data: bytes, identifier: int) -> bytes | None:
    async with await trio.open_tcp_stream(server, 53) as stream:
        await stream.send_all(struct.pack(">H", len(data)) + data)
        received = bytearray()
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            part = await stream.receive_some(16384)
            if not part:
                return None
            received += part
        answer = bytes(received[2 : 2 + int.from_bytes(received[:2], "big")])
        return answer if message.is_response_to(query, answer, identifier) else None
