"""`x-fairway.probes` of a service: how its tasks are asked if they have started, are alive, and may get traffic."""

from __future__ import annotations

import re
from collections.abc import Callable

from cli.compose.reader import Field, Reader
from proto import objects_pb2

KINDS = ("start", "live", "ready")
WAYS = ("http", "tcp", "grpc", "exec")
COUNT_MAX = 1_000
PORT_MAX = 65_535
HEADERS_MAX = 32
_PROBE_KEYS = frozenset({*WAYS, "interval", "timeout", "failures", "successes"})
_SCHEMES = {"http": False, "https": True}
_EXPECTED = re.compile(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHELL = ("/bin/sh", "-c")


def read_probes(reader: Reader, field: Field, probes: objects_pb2.Probes) -> None:
    """Fills `probes`."""
    entries = reader.known_entries(field, frozenset(KINDS), {"liveness": "say live", "readiness": "say ready"})
    for kind in KINDS:
        if kind in entries:
            _probe(reader, entries[kind], kind, getattr(probes, kind))
    if not entries and not reader.problems.found:
        reader.refuse(field, f"has none of {', '.join(KINDS)}")


def _probe(reader: Reader, field: Field, kind: str, probe: objects_pb2.Probe) -> None:
    probe.SetInParent()
    entries = reader.known_entries(field, _PROBE_KEYS, {"retries": "say failures", "start_period": "say a start probe"})
    said = [way for way in WAYS if way in entries]
    if len(said) != 1:
        reader.refuse(field, f"needs exactly one of {', '.join(WAYS)}")
    for way in said:
        _READERS[way](reader, entries[way], probe)
    if "interval" in entries:
        probe.interval_ms = reader.duration_ms(entries["interval"], low=100)
    if "timeout" in entries:
        probe.timeout_ms = reader.duration_ms(entries["timeout"], low=1)
    if "failures" in entries:
        probe.failures = reader.integer(entries["failures"], 1, COUNT_MAX)
    if "successes" in entries:
        probe.successes = reader.integer(entries["successes"], 1, COUNT_MAX)
        if kind == "live" and probe.successes > 1:
            reader.refuse(entries["successes"], "is 1 of a live probe: a task that failed it is replaced")


def _http(reader: Reader, field: Field, probe: objects_pb2.Probe) -> None:
    http = probe.http
    http.SetInParent()
    entries = reader.known_entries(field, frozenset({"port", "path", "headers", "expect", "scheme"}))
    http.port = _port(reader, field, entries)
    if "path" in entries:
        http.path = reader.text(entries["path"])
        if http.path and (not http.path.startswith("/") or not http.path.isascii() or " " in http.path):
            reader.refuse(entries["path"], f"{http.path!r} must begin with / and have no spaces, like /healthz?deep=1")
    if "headers" in entries:
        for below, name, value in reader.pairs(entries["headers"]):
            if not _HEADER_NAME.fullmatch(name) or any(character in (value or "") for character in "\r\n\0"):
                reader.refuse(below, f"{name!r} with its value is not a header")
            else:
                http.headers.add(name=name, value=value or "")
        if len(http.headers) > HEADERS_MAX:
            reader.refuse(entries["headers"], f"has more than {HEADERS_MAX} headers")
    if "expect" in entries:
        http.status_min, http.status_max = reader.parsed(entries["expect"], expected, (0, 0))
    if "scheme" in entries:
        http.tls = reader.choice(entries["scheme"], _SCHEMES, False)


def _tcp(reader: Reader, field: Field, probe: objects_pb2.Probe) -> None:
    probe.tcp.port = _port(reader, field, reader.known_entries(field, frozenset({"port"})))


def _grpc(reader: Reader, field: Field, probe: objects_pb2.Probe) -> None:
    entries = reader.known_entries(field, frozenset({"port", "service", "scheme"}))
    probe.grpc.port = _port(reader, field, entries)
    if "service" in entries:
        probe.grpc.service = reader.text(entries["service"])
    if "scheme" in entries:
        probe.grpc.tls = reader.choice(entries["scheme"], _SCHEMES, False)


def _exec(reader: Reader, field: Field, probe: objects_pb2.Probe) -> None:
    if field.is_text:
        probe.exec.extend([*_SHELL, reader.text(field)])
        return
    probe.exec.extend(reader.text(each, empty=True) for each in reader.elements(field))
    if not probe.exec:
        reader.refuse(field, "has no command")


_READERS: dict[str, Callable[[Reader, Field, objects_pb2.Probe], None]] = {
    "http": _http,
    "tcp": _tcp,
    "grpc": _grpc,
    "exec": _exec,
}


def _port(reader: Reader, field: Field, entries: dict[str, Field]) -> int:
    if "port" not in entries:
        reader.refuse(field, "has no port")
        return 0
    return reader.integer(entries["port"], 1, PORT_MAX)


def expected(text: str) -> tuple[int, int]:
    """ "204" -> (204, 204); "200-399" -> (200, 399)."""
    match = _EXPECTED.fullmatch(text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if low > high:
        raise ValueError(f"{text!r} is no status and no range of them, like 200-399")
    return low, high
