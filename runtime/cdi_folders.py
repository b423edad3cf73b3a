"""The CDI specifications of this host: which files count, which device a name means, what is wrong with the others.

A later folder goes before an earlier one; the same device in two files of one folder is nobody's: as CDI's library.
What a specification names runs as root (its hooks) or is seen by containers, so it counts only where nobody but root
could have written it: the file, its folder and all above belong to root, and no others may write there.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.cdi_model import SPEC_DEVICES_MAX, CdiDevice, CdiEdits, CdiFault, CdiNode, CdiSpec
from runtime.cdi_parse import JSON_BYTES_MAX, parse
from runtime.errors import InvalidRequest

FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))  # where the CDI library looks
FILES_MAX = 128  # of one folder
SUFFIXES = (".json", ".yaml")

_FileState = tuple[str, int, int, int, int, int, int]


@dataclass(frozen=True)
class CdiRegistry:
    """What the files say together: devices by "kind=name" in the order of their names."""

    devices: Mapping[str, CdiDevice] = field(default_factory=dict)
    specs: Mapping[str, CdiSpec] = field(default_factory=dict)  # of each device
    problems: tuple[str, ...] = ()

    def edits_of(self, names: Sequence[str], folders: Sequence[Path]) -> CdiEdits:
        """All edits for a container with these devices; those of a file once. Raises InvalidRequest where one is not
        there."""
        parts: list[CdiEdits] = []
        seen: set[Path] = set()
        for name in names:
            device = self.devices.get(name)
            if device is None:
                where = ", ".join(map(str, folders))
                raise InvalidRequest(f"device {name} is not there any more: no CDI specification in {where} has it")
            spec = self.specs[name]
            if spec.path not in seen:
                seen.add(spec.path)
                parts.append(spec.edits)
            parts.append(device.edits)
        return CdiEdits(
            environment=tuple(line for part in parts for line in part.environment),
            nodes=tuple(node for part in parts for node in part.nodes),
            mounts=tuple(mount for part in parts for mount in part.mounts),
            hooks=tuple(hook for part in parts for hook in part.hooks),
            groups=tuple(dict.fromkeys(group for part in parts for group in part.groups)),
        )


class CdiFolders:
    """Reads the folders again where something in them has changed. `look` may be called from several threads."""

    def __init__(self, folders: Sequence[Path] = FOLDERS) -> None:
        self.folders = tuple(folders)
        self._lock = threading.Lock()
        self._seen: list[_FileState] | None = None
        self._registry = CdiRegistry()

    def look(self) -> CdiRegistry:
        """What is there now. Does I/O, and parses only what is new: for another thread than the main one."""
        with self._lock:
            now = [state for folder in self.folders for state in _states(folder)]
            if now != self._seen:
                self._registry = read(self.folders)
                self._seen = now
            return self._registry


def read(folders: Sequence[Path]) -> CdiRegistry:
    """Reads all files of the folders, the least important first. What is wrong with one is said and costs that file
    alone. Does I/O."""
    problems: list[str] = []
    chosen: dict[str, CdiSpec] = {}
    clashes: list[str] = []
    for folder in folders:
        here: dict[str, CdiSpec] = {}
        twice: dict[str, CdiSpec] = {}
        for spec in _specs(folder, problems):
            for device in spec.devices:
                if device.full_name in here:
                    twice.setdefault(device.full_name, spec)
                here.setdefault(device.full_name, spec)
        clashes = [each for each in clashes if each.partition(" ")[0] not in here]  # settled by this folder
        for name, other in twice.items():
            clashes.append(f"{name} is both in {here[name].path} and in {other.path}: neither counts")
        chosen.update(here)
        for name in twice:
            del chosen[name]
    if len(chosen) > SPEC_DEVICES_MAX:
        problems.append(f"there are {len(chosen)} devices; {SPEC_DEVICES_MAX} of them count")
        chosen = dict(sorted(chosen.items())[:SPEC_DEVICES_MAX])
    found = {
        name: next(device for device in spec.devices if device.full_name == name)
        for name, spec in sorted(chosen.items())
    }
    return CdiRegistry(found, chosen, tuple(problems + clashes))


def missing_node(device: CdiDevice) -> CdiNode | None:
    """A file that the device is made of and the host has not. Does I/O."""
    return next((node for node in device.edits.nodes if not node.complete and not _is_device(node.host_path)), None)


def _is_device(path: str) -> bool:
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)


def _specs(folder: Path, problems: list[str]) -> list[CdiSpec]:
    try:
        real = Path(os.path.realpath(folder))
        names = sorted(path.name for path in real.iterdir() if path.suffix in SUFFIXES)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder} cannot be read: {error.strerror}")
        return []
    if len(names) > FILES_MAX:
        problems.append(f"{folder} has more than {FILES_MAX} files; the first ones by name count")
    found = []
    for name in names[:FILES_MAX]:
        try:
            found.append(parse(_read_trusted(real / name), folder / name))
        except CdiFault as error:
            problems.append(f"{folder / name}: {error}")
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error.strerror}")
    return found


def _read_trusted(path: Path) -> bytes:
    """The file's content; CdiFault where somebody else than root could have written it. A link is followed to a place
    of which the same holds."""
    real = Path(os.path.realpath(path))
    for above in real.parents:
        info = above.stat()
        sticky = info.st_mode & stat.S_ISVTX and info.st_uid == 0  # where others cannot put theirs in its place
        if not _of_root(info) and not (sticky and above != real.parent):
            raise CdiFault(f"others than root may write in {above}: it does not count")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would make it wait
    with os.fdopen(os.open(real, flags), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise CdiFault("it is not a file")
        if not _of_root(info):
            raise CdiFault("others than root may write it: it does not count; give it to root, mode 0644")
        return file.read(JSON_BYTES_MAX + 1)


def _of_root(info: os.stat_result) -> bool:
    return info.st_uid in (0, os.geteuid()) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _states(folder: Path) -> list[_FileState]:
    """What changes when a file does."""
    found = []
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        for path in [folder, *names[:FILES_MAX]]:
            info = path.stat()
            times = info.st_mtime_ns, info.st_ctime_ns  # of the kernel's last tick: who may write may change within one
            found.append((str(path), info.st_ino, info.st_size, info.st_mode, info.st_uid, *times))
    except OSError as error:
        found.append((str(folder), error.errno or 0, 0, 0, 0, 0, 0))
    return found
