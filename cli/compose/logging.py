"""`logging` of a service: what is kept of what its tasks write."""

from __future__ import annotations

from cli.compose import values
from cli.compose.reader import Field, Reader
from proto import log_receivers, objects_pb2
from proto.container_rules import (
    LOG_AGE_S_MAX,
    LOG_AGE_S_MIN,
    LOG_BYTES_PER_S_MAX,
    LOG_BYTES_PER_S_MIN,
    LOG_FILES_MAX,
    LOG_LINES_PER_S_MAX,
    LOG_SIZE_BYTES_MAX,
    LOG_SIZE_BYTES_MIN,
)

_FILES = objects_pb2.Logging.DRIVER_FILES
# Docker's two that write files on the host are one here; the form of the files is Fairway's.
_DRIVERS = {"json-file": _FILES, "local": _FILES, "none": objects_pb2.Logging.DRIVER_NONE, **log_receivers.DRIVERS}
_OPTIONS = frozenset({"max-size", "max-file", "max-age", "compress", "rate-lines", "rate-bytes"})
_HINTS = {
    "labels": "fairway logs knows the task of each line",
    "labels-regex": "fairway logs knows the task of each line",
    "env": "fairway logs knows the task of each line",
    "env-regex": "fairway logs knows the task of each line",
    "tag": "fairway logs knows the task of each line",
    "mode": "a task waits where its log cannot be written as fast as it writes",
    "fluentd-async": "what a receiver does not take waits in the log, and holds no task up",
    "fluentd-buffer-limit": "what a receiver does not take waits in the log: max-size and max-file bound it",
    "fluentd-request-ack": "it always asks for acknowledgements",
    "fluentd-sub-second-precision": "times always have nanoseconds",
    "max-buffer-size": "a task waits where its log cannot be written as fast as it writes",
}
_NO_RECEIVER = "logs are kept on the task's host and sent nowhere"


def read_logging(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    container.logging.SetInParent()
    entries = reader.known_entries(field, frozenset({"driver", "options"}))
    driver = "json-file"
    if "driver" in entries:
        driver = reader.text(entries["driver"]) or driver
        if driver not in _DRIVERS:
            reader.refuse(
                entries["driver"],
                f"{driver!r} is not supported by Fairway: logs are kept on the task's host (json-file, local), sent on "
                f"from there ({', '.join(log_receivers.DRIVERS)}), or not kept at all (none)",
            )
            return
        container.logging.driver = _DRIVERS[driver]
    if "options" not in entries:
        return
    if driver == "none":
        for below in reader.entries(entries["options"]).values():
            reader.refuse(below, "has no effect with the driver none")
        return
    options = reader.known_entries(entries["options"], _OPTIONS | log_receivers.ALL_OPTIONS, _HINTS)
    for name in sorted(options.keys() & log_receivers.ALL_OPTIONS):
        if driver not in log_receivers.DRIVERS:
            reader.refuse(options[name], f"has no effect with the driver {driver}: {_HINTS.get(name, _NO_RECEIVER)}")
            continue
        text = reader.text(options[name])
        if problem := log_receivers.option_problem(driver, name, text):
            reader.refuse(options[name], problem)
        else:
            container.logging.options[name] = text
    if "max-size" in options:
        container.logging.size_bytes_max = reader.parsed(options["max-size"], _size, 0)
    if "max-file" in options:
        container.logging.files_max = reader.integer(options["max-file"], 1, LOG_FILES_MAX)
    if "max-age" in options:
        container.logging.age_s_max = reader.parsed(options["max-age"], _age, 0)
    if "compress" in options:
        container.logging.compress = reader.boolean(options["compress"])
    if "rate-lines" in options:
        container.logging.lines_per_s_max = reader.integer(options["rate-lines"], 1, LOG_LINES_PER_S_MAX)
    if "rate-bytes" in options:
        container.logging.bytes_per_s_max = reader.parsed(options["rate-bytes"], _bytes_per_s, 0)


def _age(text: str) -> int:
    seconds = values.duration_ms(text) // 1_000
    if not LOG_AGE_S_MIN <= seconds <= LOG_AGE_S_MAX:
        raise ValueError(f"{text!r} is not between {LOG_AGE_S_MIN}s and {LOG_AGE_S_MAX // 3600}h")
    return seconds


def _bytes_per_s(text: str) -> int:
    size = values.size_bytes(text)
    if not LOG_BYTES_PER_S_MIN <= size <= LOG_BYTES_PER_S_MAX:
        raise ValueError(f"{text!r} is not between {LOG_BYTES_PER_S_MIN >> 10}k and {LOG_BYTES_PER_S_MAX >> 30}g")
    return size


def _size(text: str) -> int:
    if text.strip() == "-1":
        raise ValueError("-1 is no bound, and a log must have one")
    size = values.size_bytes(text)
    if not LOG_SIZE_BYTES_MIN <= size <= LOG_SIZE_BYTES_MAX:
        low, high = LOG_SIZE_BYTES_MIN >> 10, LOG_SIZE_BYTES_MAX >> 20
        raise ValueError(f"{text!r} is not between {low}k and {high}m")
    return size
