"""What is known of a running lab, in one small JSON file that every command reads and few may change."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.layout import RUN_ROOT, LabError, LabPaths
from lab.processes import ProcessMark

LOCK_TIMEOUT_SECONDS = 120.0


@dataclass
class HostRecord:
    number: int
    address: str
    init: ProcessMark | None = None  # None: powered off
    build: str = ""  # source tree that its fairwayd runs from; empty: this one


@dataclass
class ClientRecord:
    address: str
    holder: ProcessMark


@dataclass
class LabRecord:
    """A lab as it was when the record was written; process marks say what of it still lives."""

    name: str
    state_folder: str
    boot_id: str  # the machine's run it belongs to: process ids of another one mean nothing
    daemon_command: list[str] = field(default_factory=list)  # empty: fairwayd
    host_cpu_millis: int = 4000
    host_memory_bytes: int = 4 << 30
    switch: ProcessMark | None = None
    hosts: dict[str, HostRecord] = field(default_factory=dict)
    clients: dict[str, ClientRecord] = field(default_factory=dict)
    partition_count: int = 0  # bridges made for partitions since the last heal
    cluster_formed: bool = False
    ipv6_underlay: bool = False  # hosts reach each other by IPv6


def boot_id() -> str:
    """Changes with every start of the machine (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def save(record: LabRecord, paths: LabPaths) -> None:
    """Replaces the file in one step."""
    fresh = paths.record.with_suffix(".new")
    fresh.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")
    fresh.replace(paths.record)


def load(name: str) -> tuple[LabRecord, LabPaths]:
    """Raises LabError where there is no such lab."""
    file = RUN_ROOT / name / "lab.json"
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise LabError(f"there is no lab {name!r}; `fairway lab ls` lists them, `fairway lab up` makes one") from None
    except ValueError as error:
        raise LabError(f"{file} cannot be read ({error}); remove the lab: fairway lab down {name}") from None
    record = LabRecord(**value)
    record.switch = _mark(value["switch"])
    record.hosts = {
        host: HostRecord(entry["number"], entry["address"], _mark(entry["init"]), entry.get("build", ""))
        for host, entry in value["hosts"].items()
    }
    record.clients = {
        client: ClientRecord(entry["address"], ProcessMark(**entry["holder"]))
        for client, entry in value["clients"].items()
    }
    if record.boot_id != boot_id():
        record.switch = None
        record.clients = {}
        for host_record in record.hosts.values():
            host_record.init = None
    return record, LabPaths(RUN_ROOT / name, Path(record.state_folder))


def _mark(value: dict[str, int] | None) -> ProcessMark | None:
    return None if value is None else ProcessMark(**value)


def names() -> list[str]:
    """Of all labs on this machine."""
    if not RUN_ROOT.is_dir():
        return []
    return sorted(entry.name for entry in RUN_ROOT.iterdir() if (entry / "lab.json").exists())


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One command at a time changes a lab; LabError after LOCK_TIMEOUT_SECONDS of waiting."""
    RUN_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    path = RUN_ROOT / f"{name}.lock"
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(f"another command has been changing lab {name!r} for too long") from None
                time.sleep(0.05)
                continue
            # `down` removes the file: a lock on a file that is gone is nobody's.
            if not path.exists() or path.stat().st_ino != Path(f"/proc/self/fd/{file.fileno()}").stat().st_ino:
                continue
            yield
            return
