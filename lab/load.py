"""A steady load: so many HTTP requests a second, sent on time whether or not earlier ones were answered.

What this process sleeps through, since it gets no processor, is no wait for answers: they may lie there unread. Nor are
the requests of that time sent afterwards in one go: a server's queue would have no room for them.

`python -m lab.load URL --rate 100 --seconds 30 --json` prints one JSON object when it ends, which it does by
itself, or at SIGINT or SIGTERM with what it has until then. Run it in a lab's client:
`fairway lab exec client -- .venv/bin/python -m lab.load ...`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import math
import signal
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

IN_FLIGHT_MAX = 2000
FAILURES_KEPT_MAX = 1000
ANSWERS_KEPT_MAX = 200
RESPONSE_BYTES_MAX = 1 << 20
_RECEIVE_BYTES = 65536
_TICK_SECONDS = 0.02
_LATE_SECONDS_MAX = 0.05  # by what is longer this process has slept
_OVERTIME_SECONDS_MAX = 1.0  # for requests that were not sent on time by that


@dataclass(frozen=True)
class LoadPlan:
    """What to send; a request that has no full answer within timeout_seconds, while this ran, has failed."""

    host: str
    port: int
    path: str
    rate_per_second: float
    seconds: float
    timeout_seconds: float = 2.0
    keep_alive: bool = False  # connections are used again; else each request has its own


@dataclass(frozen=True)
class Failure:
    unix_seconds: float  # when the request was sent
    reason: str


@dataclass
class LoadResult:
    """What came of it. An outage lasts from the first failed request to the next that was answered."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)  # the first FAILURES_KEPT_MAX
    answers: dict[str, int] = field(default_factory=dict)  # body's first 200 characters -> count
    longest_outage_seconds: float = 0.0
    longest_silence_seconds: float = 0.0  # without an answer, from the start to the end
    failing_span_seconds: float = 0.0  # from the first failed request to the last, whatever was in between
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0
    latency_ms_max: float = 0.0
    started_unix_seconds: float = 0.0
    seconds: float = 0.0
    slept_seconds: float = 0.0  # of them without a processor


class RequestFailed(Exception):
    """The reason is the message, in few words, for it is counted by."""


class _Tally:
    """Counts outcomes by the time at which their requests were sent."""

    def __init__(self) -> None:
        self.result = LoadResult(started_unix_seconds=time.time())
        self._latencies_ms: list[float] = []
        self._outcomes: list[tuple[float, bool]] = []
        self._last_answer_unix_seconds = self.result.started_unix_seconds

    def add(self, sent_at: float, latency_seconds: float, reason: str, body: bytes) -> None:
        result = self.result
        self._outcomes.append((sent_at, not reason))
        if reason:
            result.failed += 1
            result.reasons[reason] = result.reasons.get(reason, 0) + 1
            if len(result.failures) < FAILURES_KEPT_MAX:
                result.failures.append(Failure(sent_at, reason))
            return
        result.ok += 1
        now = time.time()
        result.longest_silence_seconds = max(result.longest_silence_seconds, now - self._last_answer_unix_seconds)
        self._last_answer_unix_seconds = now
        self._latencies_ms.append(latency_seconds * 1e3)
        text = body[:200].decode(errors="replace").strip()
        if text in result.answers or len(result.answers) < ANSWERS_KEPT_MAX:
            result.answers[text] = result.answers.get(text, 0) + 1

    def finished(self) -> LoadResult:
        result = self.result
        result.seconds = time.time() - result.started_unix_seconds
        silence = time.time() - self._last_answer_unix_seconds
        result.longest_silence_seconds = max(result.longest_silence_seconds, silence)
        result.longest_outage_seconds = longest_outage(self._outcomes)
        failed_at = [sent_at for sent_at, good in self._outcomes if not good]
        result.failing_span_seconds = max(failed_at) - min(failed_at) if failed_at else 0.0
        latencies = sorted(self._latencies_ms)
        if latencies:
            result.latency_ms_p50 = percentile(latencies, 0.5)
            result.latency_ms_p99 = percentile(latencies, 0.99)
            result.latency_ms_max = latencies[-1]
        return result


def longest_outage(outcomes: list[tuple[float, bool]]) -> float:
    """Longest time from a failed request to the next good one sent, of (time sent, good); to the last
    failed one where none follows."""
    longest, began, last = 0.0, math.nan, 0.0
    for sent_at, good in sorted(outcomes):
        last = sent_at
        if not good and math.isnan(began):
            began = sent_at
        elif good and not math.isnan(began):
            longest, began = max(longest, sent_at - began), math.nan
    return longest if math.isnan(began) else max(longest, last - began)


def percentile(ordered: list[float], share: float) -> float:
    """The value that `share` of a sorted, non-empty list does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Limits:
    """Ends requests that have waited for too long, in time in which this process ran."""

    def __init__(self, seconds: float) -> None:
        self.slept_seconds = 0.0
        self._seconds = seconds
        self._ran_seconds = 0.0
        self._due_seconds: dict[trio.CancelScope, float] = {}  # the earliest first

    @contextlib.contextmanager
    def of_one(self) -> Iterator[None]:
        scope = trio.CancelScope()
        self._due_seconds[scope] = self._ran_seconds + self._seconds
        try:
            with scope:
                yield
        finally:
            self._due_seconds.pop(scope, None)

    async def run(self) -> None:
        """Until cancelled."""
        before = trio.current_time()
        while True:
            await trio.sleep(_TICK_SECONDS)
            now = trio.current_time()
            slept = max(now - before - _TICK_SECONDS - _LATE_SECONDS_MAX, 0.0)
            self.slept_seconds += slept
            self._ran_seconds += now - before - slept
            before = now
            for scope, due in list(self._due_seconds.items()):
                if due > self._ran_seconds:
                    break
                del self._due_seconds[scope]
                scope.cancel()


class _Client:
    """Sends requests of a plan, over new connections or over idle ones that it keeps."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._idle: collections.deque[trio.SocketStream] = collections.deque(maxlen=IN_FLIGHT_MAX)
        connection = "keep-alive" if plan.keep_alive else "close"
        self._request = (
            f"GET {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
            f"User-Agent: fairway-load\r\nAccept: */*\r\nConnection: {connection}\r\n\r\n"
        ).encode()

    async def fetch(self) -> bytes:
        """The body of one answer with status 200; raises RequestFailed."""
        stream = self._idle.popleft() if self._idle else await self._connect()
        reusable = False
        try:
            await stream.send_all(self._request)
            status, body, reusable = await _read_answer(stream)
        except trio.BrokenResourceError as error:
            raise RequestFailed(_errno_words(error)) from error
        finally:
            if reusable and self._plan.keep_alive:
                self._idle.append(stream)
            else:
                await trio.aclose_forcefully(stream)
        if status != 200:
            raise RequestFailed(f"status {status}")
        return body

    async def _connect(self) -> trio.SocketStream:
        try:
            return await trio.open_tcp_stream(self._plan.host, self._plan.port)
        except OSError as error:
            raise RequestFailed(f"connect: {_errno_words(error)}") from error

    async def close(self) -> None:
        for stream in self._idle:
            await trio.aclose_forcefully(stream)


def _errno_words(error: BaseException) -> str:
    """The system's words for what is at the bottom of a chain of errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error).lower() or type(error).__name__


async def _read_answer(stream: trio.SocketStream) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection can serve another request (RFC 9112)."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _receive(stream, len(data), "connection closed before an answer")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split()
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise RequestFailed("not an HTTP answer")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    if "content-length" not in headers:
        while chunk := await stream.receive_some(_RECEIVE_BYTES):
            body += chunk
            if len(body) > RESPONSE_BYTES_MAX:
                raise RequestFailed("answer too long")
        return int(words[1]), body, False
    if not headers["content-length"].isdigit():
        raise RequestFailed("not an HTTP answer")
    while len(body) < int(headers["content-length"]):
        body += await _receive(stream, len(body), "connection closed within an answer")
    keeps = words[0] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return int(words[1]), body, keeps


async def _receive(stream: trio.SocketStream, so_far_bytes: int, closed: str) -> bytes:
    if so_far_bytes > RESPONSE_BYTES_MAX:
        raise RequestFailed("answer too long")
    data = await stream.receive_some(_RECEIVE_BYTES)
    if not data:
        raise RequestFailed(closed)
    return bytes(data)


async def run_load(plan: LoadPlan, on_outcome: Callable[[bool], None] = lambda _: None) -> LoadResult:
    """Sends the plan's requests and waits for all answers or their time limits.

    Ends early at SIGINT or SIGTERM (only when run in the main thread), with the result so far.
    """
    tally, client, limits = _Tally(), _Client(plan), _Limits(plan.timeout_seconds)
    count = int(plan.rate_per_second * plan.seconds)
    in_flight = 0

    async def one() -> None:
        nonlocal in_flight
        sent_at, began = time.time(), trio.current_time()
        reason, body = f"no answer in {plan.timeout_seconds:g} s", b""
        with limits.of_one():
            try:
                body, reason = await client.fetch(), ""
            except RequestFailed as error:
                reason = str(error)
        in_flight -= 1
        tally.add(sent_at, trio.current_time() - began, reason, body)
        on_outcome(not reason)

    async def send_all(sending: trio.CancelScope) -> None:
        """Starts the requests on time; what has begun goes on when `sending` is cancelled."""
        nonlocal in_flight
        async with trio.open_nursery() as requests:
            start = trio.current_time()
            end = start + plan.seconds + _OVERTIME_SECONDS_MAX
            with sending:
                for number in range(count):
                    await trio.sleep_until(start + number / plan.rate_per_second)
                    late = trio.current_time() - (start + number / plan.rate_per_second)
                    start += late if late > _LATE_SECONDS_MAX else 0.0
                    if trio.current_time() > end:
                        break
                    tally.result.sent += 1
                    if in_flight >= IN_FLIGHT_MAX:
                        tally.add(time.time(), 0.0, f"more than {IN_FLIGHT_MAX} unanswered", b"")
                        continue
                    in_flight += 1
                    requests.start_soon(one)

    sending = trio.CancelScope()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for _ in signals:
                    sending.cancel()

            nursery.start_soon(stop_at_signal)
            nursery.start_soon(limits.run)
            await send_all(sending)
            nursery.cancel_scope.cancel()
    await client.close()
    tally.result.slept_seconds = limits.slept_seconds
    return tally.finished()


def parse_plan(arguments: argparse.Namespace) -> LoadPlan:
    """Raises ValueError where the URL is not http://HOST[:PORT][/PATH]."""
    parts = urllib.parse.urlsplit(arguments.url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{arguments.url!r} is not a URL of the form http://HOST[:PORT][/PATH]")
    if arguments.rate <= 0 or arguments.seconds <= 0 or arguments.timeout <= 0:
        raise ValueError("--rate, --seconds and --timeout must be greater than 0")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return LoadPlan(
        host=parts.hostname,
        port=parts.port or 80,
        path=path,
        rate_per_second=arguments.rate,
        seconds=arguments.seconds,
        timeout_seconds=arguments.timeout,
        keep_alive=arguments.keep_alive,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.load", description="A steady load of GET requests.")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds a request may take")
    parser.add_argument("--keep-alive", action="store_true", help="use connections again")
    parser.add_argument("--json", action="store_true", help="print the result for a program")
    arguments = parser.parse_args()
    try:
        plan = parse_plan(arguments)
    except ValueError as error:
        parser.error(str(error))
    result = trio.run(run_load, plan)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    print(
        f"{result.sent} requests in {result.seconds:.1f} s: {result.ok} answered, {result.failed} failed; "
        f"p50 {result.latency_ms_p50:.1f} ms, p99 {result.latency_ms_p99:.1f} ms; "
        f"longest outage {result.longest_outage_seconds:.2f} s"
    )
    for reason, count in sorted(result.reasons.items()):
        print(f"  {count} x {reason}")
    return 0 if result.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
