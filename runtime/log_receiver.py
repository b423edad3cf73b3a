"""Where one task's log is sent besides its files, kept in the log's own folder until all of it was sent.

folder/receiver.json says where to, folder/sent how far: `NUMBER OFFSET` of the log. Blocking; called in threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proto import log_receivers
from runtime.log_reader import Position
from runtime.model import ContainerRequest

_DESCRIPTION = "receiver.json"
_PLACE = "sent"


@dataclass(frozen=True)
class Receiver:
    driver: str  # of log_receivers.DRIVERS
    options: Mapping[str, str]
    words: Mapping[str, str]  # what a tag may speak of, by log_receivers.TAG_WORDS

    @functools.cached_property
    def address(self) -> log_receivers.Address:
        return log_receivers.address_of(self.driver, self.options)

    @functools.cached_property
    def tag(self) -> str:
        return log_receivers.tag_of(self.options, self.words)


def of(request: ContainerRequest, task_id: str, node: str) -> Receiver | None:
    """What a container's spec asks for; None where its log stays on the host."""
    said = request.spec.logging
    driver = log_receivers.driver_name(said.driver)
    if not driver:
        return None
    labels = {name.rpartition(".")[2]: value for name, value in request.labels.items()}
    app, service, name = labels.get("app", ""), labels.get("service", ""), labels.get("task", task_id)
    words = {
        "Name": ".".join(filter(None, (app, name))),
        "ID": task_id[:12],
        "FullID": task_id,
        "ImageName": request.spec.image,
        "App": app,
        "Service": service,
        "DaemonName": node,
    }
    return Receiver(driver, dict(said.options), words)


def keep(folder: Path, receiver: Receiver) -> None:
    """Raises OSError."""
    fresh = folder / f"{_DESCRIPTION}.new"
    fresh.write_text(json.dumps(dataclasses.asdict(receiver)))
    fresh.replace(folder / _DESCRIPTION)


def kept(folder: Path) -> Receiver | None:
    """None where there is none, or all was sent."""
    try:
        found = json.loads((folder / _DESCRIPTION).read_bytes())
        receiver = Receiver(found["driver"], found["options"], found["words"])
        _ = receiver.address
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return receiver


def forget(folder: Path) -> None:
    """All was sent. What is added later, by another container of the task, is sent from there on."""
    with contextlib.suppress(OSError):
        (folder / _DESCRIPTION).unlink()


class Place:
    """How far a log was sent."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PLACE
        try:
            number, offset_bytes = map(int, self._path.read_text().split())
            self.position = Position(number, offset_bytes)
        except (OSError, ValueError):
            self.position = Position(0, 0)

    def move(self, position: Position) -> None:
        """Raises OSError. A torn one could not be told from another: so it is written in one piece."""
        self.position = position
        content = b"%-10d %-20d\n" % (position.number, position.offset_bytes)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, content, 0)
        finally:
            os.close(file)
