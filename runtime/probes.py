"""Makes the probes of one task for as long as it runs.

What a probe takes is bounded: time, bytes, and how many are made at once on a host.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from proto.objects_pb2 import Probe
from runtime import http_get, probe_plan
from runtime.errors import NotFound, RuntimeFailure, TimedOut, Unavailable
from runtime.probe_plan import Kind, ProbeState

log = logging.getLogger(__name__)

AT_ONCE_MAX = 64  # probes of one host
WORDS_CHARACTERS_MAX = 300
STATUS_MIN, STATUS_MAX = 200, 399

Connect = Callable[[int], Awaitable[trio.abc.Stream]]  # to a TCP port of the task, from within its network; OSError
# (command, timeout_ms) -> (exit code, output); raises RuntimeFailure. See Runtime.run_check.
Execute = Callable[[Sequence[str], int], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True)
class Way:
    """How a task is reached: `address` is what it is called in requests."""

    address: str
    connect: Connect
    execute: Execute
    seats: trio.CapacityLimiter  # of the host


async def run_probe(
    kind: Kind, probe: Probe, way: Way, note: Callable[[ProbeState, str], None], state: ProbeState | None = None
) -> None:
    """Notes the state after each probe, with what was wrong (empty: nothing). Ends with a start probe's verdict, a live
    probe's failure, and the container; a containerd that does not answer says nothing about the task."""
    pace = probe_plan.pace_of(kind, probe)
    state = state or ProbeState()
    while True:
        try:
            async with way.seats:
                wrong = await probe_once(probe, way, pace.timeout_ms)
        except NotFound:
            return
        except Unavailable as error:
            log.debug("a probe is left out: %s", error)
        else:
            state = probe_plan.after_probe(kind, pace, state, not wrong, int(trio.current_time() * 1000))
            note(state, wrong)
            if probe_plan.is_over(kind, state):
                return
        await trio.sleep(probe_plan.wait_ms(kind, pace, state) / 1000)


async def probe_once(probe: Probe, way: Way, timeout_ms: int) -> str:
    """What is wrong, in words; empty where it passes. Raises NotFound and Unavailable of containerd."""
    words = f"no answer within {timeout_ms} ms"
    # A command has its limit from who executes it, who knows whether it was its fault.
    with trio.move_on_after(math.inf if probe.exec else timeout_ms / 1000):
        try:
            words = await _probe(probe, way, timeout_ms)
        except (NotFound, Unavailable):
            raise
        except TimedOut:
            pass
        except (RuntimeFailure, ssl.SSLError) as error:
            words = str(error)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            words = f"the connection broke: {error.__cause__ or error}"
    return f"{_what(probe)}: {words}"[:WORDS_CHARACTERS_MAX] if words else ""


async def _probe(probe: Probe, way: Way, timeout_ms: int) -> str:
    if probe.exec:
        code, output = await way.execute(probe.exec, timeout_ms)
        words = output.decode(errors="replace").strip()
        return f"exit code {code}{': ' if words else ''}{words}" if code else ""
    async with await way.connect(_port(probe)) as stream:
        if probe.HasField("http"):
            return await _http(probe, way, stream)
        if probe.HasField("grpc"):
            return await _grpc(probe, way, stream)
    return ""


async def _http(probe: Probe, way: Way, plain: trio.abc.Stream) -> str:
    asked = probe.http
    stream: trio.abc.Stream = http_get.secured(plain) if asked.tls else plain
    headers = [(header.name, header.value) for header in asked.headers]
    status, _ = await http_get.get(stream, f"{way.address}:{asked.port}", asked.path or "/", headers)
    low = asked.status_min or STATUS_MIN
    high = asked.status_max or asked.status_min or STATUS_MAX
    return "" if low <= status <= high else f"HTTP {status}"


async def _grpc(probe: Probe, way: Way, plain: trio.abc.Stream) -> str:
    from runtime import grpc_health  # h2 takes some megabytes, and few tasks need it

    asked = probe.grpc
    stream: trio.abc.Stream = http_get.secured(plain, ["h2"]) if asked.tls else plain
    return await grpc_health.check(stream, f"{way.address}:{asked.port}", asked.service, asked.tls)


def _port(probe: Probe) -> int:
    return probe.http.port or probe.grpc.port or probe.tcp.port


def _what(probe: Probe) -> str:
    if probe.HasField("http"):
        return f"GET :{probe.http.port}{probe.http.path or '/'}"
    if probe.HasField("grpc"):
        return f"gRPC health of {probe.grpc.service or 'the server'} at :{probe.grpc.port}"
    return f"TCP :{probe.tcp.port}" if probe.HasField("tcp") else " ".join(probe.exec)[:80]
