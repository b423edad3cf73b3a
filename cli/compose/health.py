"""`healthcheck` of a service (https://github.com/compose-spec/compose-spec/blob/main/05-services.md)."""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from proto import objects_pb2

_KEYS = frozenset({"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"})
_FORMS = ("CMD", "CMD-SHELL", "NONE")
# Docker's defaults (https://docs.docker.com/reference/dockerfile/#healthcheck).
_INTERVAL_MS = 30_000
_TIMEOUT_MS = 30_000
_RETRIES = 3
_START_INTERVAL_MS = 5_000


def read_healthcheck(reader: Reader, field: Field) -> objects_pb2.Healthcheck | None:
    """The check with every default filled in; test ["NONE"] where it is disabled."""
    entries = reader.known_entries(field, _KEYS)
    disabled = "disable" in entries and reader.boolean(entries["disable"])
    test = _test(reader, entries["test"]) if "test" in entries else []
    if disabled or test == ["NONE"]:
        return objects_pb2.Healthcheck(test=["NONE"])
    if "test" not in entries:
        if not field.is_null:
            reader.refuse(field, "has no test; the image's own check cannot be changed in part, so write it here")
        return None
    check = objects_pb2.Healthcheck(
        test=test,
        interval_ms=_INTERVAL_MS,
        timeout_ms=_TIMEOUT_MS,
        retries=_RETRIES,
        start_interval_ms=_START_INTERVAL_MS,
    )
    if "interval" in entries:
        check.interval_ms = reader.duration_ms(entries["interval"], low=1)
    if "timeout" in entries:
        check.timeout_ms = reader.duration_ms(entries["timeout"], low=1)
    if "retries" in entries:
        check.retries = reader.integer(entries["retries"], 1, 1000, otherwise=_RETRIES)
    if "start_period" in entries:
        check.start_period_ms = reader.duration_ms(entries["start_period"])
    if "start_interval" in entries:
        check.start_interval_ms = reader.duration_ms(entries["start_interval"], low=1)
    return check


def _test(reader: Reader, field: Field) -> list[str]:
    if field.is_text:
        text = reader.text(field)
        return ["CMD-SHELL", text] if text else []
    words = [reader.text(each, empty=True) for each in reader.elements(field)]
    if not words or words[0] not in _FORMS:
        reader.refuse(field, f"must begin with {', '.join(_FORMS[:2])} or {_FORMS[2]}")
    elif words[0] == "NONE" and len(words) > 1:
        reader.refuse(field, "takes nothing after NONE")
    elif words[0] == "CMD" and len(words) < 2:
        reader.refuse(field, "has no command after CMD")
    elif words[0] == "CMD-SHELL" and len(words) != 2:
        reader.refuse(field, "takes exactly one command line after CMD-SHELL")
    return words
