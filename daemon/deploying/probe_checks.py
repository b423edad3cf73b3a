"""What the probes of a service may say, before they reach a host, and how two versions of them differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from proto import objects_pb2 as objects

KINDS: tuple[Literal["start", "live", "ready"], ...] = ("start", "live", "ready")
COUNT_MAX = 1_000
INTERVAL_MS_MIN = 100
MS_MAX = 86_400_000
TEXT_CHARACTERS_MAX = 4_096
HEADERS_MAX = 32
WORDS_MAX = 256
_CONTROLS = frozenset("\r\n\0")


def probe_problems(container: objects.ContainerSpec) -> Iterator[str]:
    """In words, as they go on after the service's name."""
    for kind in KINDS:
        if container.probes.HasField(kind):
            for problem in _problems(getattr(container.probes, kind)):
                yield f"its {kind} probe {problem}"


def probe_changes(before: objects.ContainerSpec, after: objects.ContainerSpec) -> list[str]:
    """Reasons why tasks are replaced."""
    return [
        f"{kind} probe changed"
        for kind in KINDS
        if getattr(before.probes, kind) != getattr(after.probes, kind)
        or before.probes.HasField(kind) != after.probes.HasField(kind)
    ]


def _problems(probe: objects.Probe) -> Iterator[str]:
    ways = [name for name in ("http", "tcp", "grpc") if probe.HasField(name)] + ["exec"] * bool(probe.exec)
    if len(ways) != 1:
        yield "needs exactly one of http, tcp, grpc and exec"
    for name in ("http", "tcp", "grpc"):
        if name in ways and not 0 < getattr(probe, name).port < 1 << 16:
            yield f"has no port between 1 and {(1 << 16) - 1}"
    if probe.interval_ms and not INTERVAL_MS_MIN <= probe.interval_ms <= MS_MAX:
        yield f"has an interval that is not between {INTERVAL_MS_MIN} ms and a day"
    if not 0 <= probe.timeout_ms <= MS_MAX:
        yield "has a timeout that is negative or longer than a day"
    if max(probe.failures, probe.successes) > COUNT_MAX:
        yield f"asks for more than {COUNT_MAX} in a row"
    if probe.http.path and (
        not probe.http.path.startswith("/") or any(not "!" <= character <= "~" for character in probe.http.path)
    ):
        yield f"has the path {probe.http.path!r}, which does not begin with / or is not ASCII"
    if len(probe.http.headers) > HEADERS_MAX or len(probe.exec) > WORDS_MAX:
        yield f"has more than {HEADERS_MAX} headers or {WORDS_MAX} words"
    texts = [probe.http.path, probe.grpc.service, *probe.exec]
    texts += [text for header in probe.http.headers for text in (header.name, header.value)]
    if any(len(text) > TEXT_CHARACTERS_MAX for text in texts):
        yield f"has a text of more than {TEXT_CHARACTERS_MAX} characters"
    if any(_CONTROLS & set(header.name + header.value) or not header.name for header in probe.http.headers):
        yield "has a header that is none"
