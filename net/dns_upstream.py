"""Asks the servers of the host, or of a task's own choice, what is not ours to answer.

Askers that want the same share one question; a server that stays silent is joined by the next after a moment and
avoided for a while; what nobody answers is answered by what is kept from before, where there is such.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from net import dns_message as message
from net import dns_response as responses
from net.dns_answers import Passed
from net.dns_cache import STALE_TTL_SECONDS, Key, ResponseCache
from net.dns_exchange import exchange
from net.dns_health import ServerHealth
from net.dns_message import Query
from net.dns_resolv_conf import HOST_FILE, nameservers, read_resolv_conf
from net.dns_response import Response
from net.model import Counters

log = logging.getLogger(__name__)

QUESTIONS_MAX = 256  # under way at a time
QUESTIONS_PER_ASKER_MAX = 64
WAITING_MAX = 1024  # askers
ATTEMPTS_MAX = 3
NEXT_ATTEMPT_SECONDS = 0.5
QUESTION_SECONDS_MAX = 3.5
STALE_AFTER_SECONDS = 1.8  # RFC 8767, 5: before the asker gives up
_RESOLV_CONF_CHECK_SECONDS = 2.0


@dataclass
class _Question:
    """One question that is under way."""

    done: trio.Event = field(default_factory=trio.Event)
    response: Response | None = None


class Upstream:
    """`servers` None: those of `/etc/resolv.conf`, read again when the file changes.

    `run` must be running for `ask`; `kept` may be called by any thread. `clock` gives seconds.
    """

    def __init__(
        self,
        counters: Counters,
        servers: Sequence[str] | None = None,
        file: Path = HOST_FILE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._fixed = servers is not None
        self._servers = tuple(servers) if servers is not None else nameservers(read_resolv_conf(file))
        self._file = file
        self._clock = clock
        self._cache = ResponseCache()
        self._health = ServerHealth()
        self._questions: dict[Key, _Question] = {}
        self._asked_by: Counter[str] = Counter()
        self._waiting = 0
        self._nursery: trio.Nursery | None = None

    @property
    def follows_host(self) -> bool:
        """Whether the host's own resolv.conf says whom to ask."""
        return not self._fixed

    def servers(self) -> tuple[str, ...]:
        """Whom to ask where a task has none of its own."""
        return self._servers

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Asks, and follows the host's resolv.conf, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await self._follow_host()
            finally:
                self._nursery = None

    def kept(self, passed: Passed) -> bytes | None:
        """The answer where it is known without asking anybody."""
        key, now, query = self._key(passed), self._clock(), passed.query
        if (fresh := self._cache.fresh(key, now)) is not None:
            return responses.write_answer(query, *fresh)
        if (stale := self._cache.stale(key, now, without_asking=True)) is not None:
            return self._stale_answer(query, stale)
        return self._failure(passed) if self._cache.has_failed(key, now) else None

    async def ask(self, passed: Passed, asker: str) -> bytes:
        """The answer to the asker, with its identifier; SERVFAIL when nobody knows in time."""
        if (kept := self.kept(passed)) is not None:
            return kept
        key = self._key(passed)
        question = self._questions.get(key) or self._begin(key, asker)
        if question is None or self._waiting >= WAITING_MAX:
            self._counters.dns_refused_count += 1
            stale = self._cache.stale(key, self._clock())
            return self._failure(passed) if stale is None else self._stale_answer(passed.query, stale)
        self._waiting += 1
        try:
            with trio.move_on_after(STALE_AFTER_SECONDS):
                await question.done.wait()
            if question.response is None or not _is_useful(question.response):
                if (stale := self._cache.stale(key, self._clock())) is not None:
                    return self._stale_answer(passed.query, stale)
                await question.done.wait()
        finally:
            self._waiting -= 1
        if question.response is None or not _is_useful(question.response):
            return self._failure(passed)
        return responses.write_answer(passed.query, question.response)

    def _begin(self, key: Key, asker: str) -> _Question | None:
        """A new question, under way; None where the limits do not allow it."""
        if len(self._questions) >= QUESTIONS_MAX or self._asked_by[asker] >= QUESTIONS_PER_ASKER_MAX:
            return None
        if self._nursery is None:
            return None
        question = self._questions[key] = _Question()
        self._asked_by[asker] += 1
        self._nursery.start_soon(self._find, key, question, asker)
        return question

    async def _find(self, key: Key, question: _Question, asker: str) -> None:
        try:
            response = await self._ask_servers(key)
            if response is not None and _is_useful(response):
                self._cache.keep(key, response, self._clock())
            else:
                self._counters.dns_failure_count += 1
                self._cache.note_failure(key, self._clock())
            question.response = response
        except Exception:
            log.exception("ask other name servers")
        finally:
            question.done.set()
            del self._questions[key]
            self._asked_by[asker] -= 1
            if not self._asked_by[asker]:
                del self._asked_by[asker]

    async def _ask_servers(self, key: Key) -> Response | None:
        """The first useful response; else the first that came at all."""
        servers = self._health.order(key[3], self._clock())
        best: Response | None = None
        silent_since: dict[str, float] = {}
        answered: set[str] = set()

        async def attempt(server: str, over: trio.Event) -> None:
            nonlocal best
            silent_since.setdefault(server, self._clock())
            self._counters.dns_forwarded_count += 1
            try:
                response = await exchange(server, key[0], dnssec_ok=key[1], unchecked=key[2], health=self._health)
            except (OSError, trio.BrokenResourceError) as error:
                log.debug("name server %s: %s", server, error)
                silent_since[server] = -math.inf
                response = None
            if response is not None:
                answered.add(server)
                self._health.answered(server)
                if best is None or _is_useful(response):
                    best = response
                if _is_useful(response):
                    nursery.cancel_scope.cancel()
            over.set()

        with trio.move_on_after(QUESTION_SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                for server in itertools.islice(itertools.cycle(servers), ATTEMPTS_MAX):
                    if server not in answered:
                        nursery.start_soon(attempt, server, over := trio.Event())
                        with trio.move_on_after(NEXT_ATTEMPT_SECONDS):
                            await over.wait()
        for server, since in silent_since.items():
            if server not in answered and self._clock() - since >= NEXT_ATTEMPT_SECONDS:
                self._health.was_silent(server, self._clock())
        return best

    async def _follow_host(self) -> None:
        while not self._fixed:
            await trio.sleep(_RESOLV_CONF_CHECK_SECONDS)
            text = await trio.to_thread.run_sync(read_resolv_conf, self._file)
            self._servers = nameservers(text)
        await trio.sleep_forever()

    def _key(self, passed: Passed) -> Key:
        query = passed.query
        question = query.question[:-4].lower() + query.question[-4:]  # its end is type and class
        unchecked = bool(query.flags & message.CHECKING_DISABLED)
        return question, query.dnssec_ok, unchecked, passed.servers or self._servers

    def _stale_answer(self, query: Query, response: Response) -> bytes:
        self._counters.dns_stale_count += 1
        return responses.write_answer(query, response, ttl_seconds=STALE_TTL_SECONDS)

    def _failure(self, passed: Passed) -> bytes:
        code = message.NAME_ERROR if passed.ours_if_unanswered else message.SERVER_FAILURE
        return message.write_response(passed.query, code, authoritative=passed.ours_if_unanswered)


def _is_useful(response: Response) -> bool:
    """Whether it says something of the name, and not of the server."""
    return response.code not in (
        message.SERVER_FAILURE,
        message.REFUSED,
        message.FORMAT_ERROR,
        message.NOT_IMPLEMENTED,
        message.BAD_VERSION,
    )
