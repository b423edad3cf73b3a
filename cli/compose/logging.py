"""`logging` of a service: what is kept of what its tasks write."""

from __future__ import annotations

from cli.compose import values
from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.container_rules import LOG_FILES_MAX, LOG_SIZE_BYTES_MAX, LOG_SIZE_BYTES_MIN

_FILES = objects_pb2.Logging.DRIVER_FILES
# Docker's two that write files on the host are one here; the form of the files is Fairway's.
_DRIVERS = {"json-file": _FILES, "local": _FILES, "none": objects_pb2.Logging.DRIVER_NONE}
_OPTIONS = frozenset({"max-size", "max-file", "compress"})
_HINTS = {
    "labels": "fairway logs knows the task of each line",
    "labels-regex": "fairway logs knows the task of each line",
    "env": "fairway logs knows the task of each line",
    "env-regex": "fairway logs knows the task of each line",
    "tag": "fairway logs knows the task of each line",
    "mode": "a task waits where its log cannot be written as fast as it writes",
    "max-buffer-size": "a task waits where its log cannot be written as fast as it writes",
}


def read_logging(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    container.logging.SetInParent()
    entries = reader.known_entries(field, frozenset({"driver", "options"}))
    driver = "json-file"
    if "driver" in entries:
        driver = reader.text(entries["driver"])
        if driver and driver not in _DRIVERS:
            reader.refuse(
                entries["driver"],
                f"{driver!r} is not supported by Fairway: logs are kept on the task's host (json-file, local), or not "
                "at all (none)",
            )
            return
        container.logging.driver = _DRIVERS.get(driver, _FILES)
    if "options" not in entries:
        return
    if driver == "none":
        for below in reader.entries(entries["options"]).values():
            reader.refuse(below, "has no effect with the driver none")
        return
    options = reader.known_entries(entries["options"], _OPTIONS, _HINTS)
    if "max-size" in options:
        container.logging.size_bytes_max = reader.parsed(options["max-size"], _size, 0)
    if "max-file" in options:
        container.logging.files_max = reader.integer(options["max-file"], 1, LOG_FILES_MAX)
    if "compress" in options:
        container.logging.compress = reader.boolean(options["compress"])


def _size(text: str) -> int:
    if text.strip() == "-1":
        raise ValueError("-1 is no bound, and a log must have one")
    size = values.size_bytes(text)
    if not LOG_SIZE_BYTES_MIN <= size <= LOG_SIZE_BYTES_MAX:
        low, high = LOG_SIZE_BYTES_MIN >> 10, LOG_SIZE_BYTES_MAX >> 20
        raise ValueError(f"{text!r} is not between {low}k and {high}m")
    return size
