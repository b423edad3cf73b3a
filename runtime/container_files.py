"""The files of a running container, as it sees them and without leaving what it sees."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proto.copy_rules import CopyRefused, Goal, Present, goal_of
from proto.hands_pb2 import CopySource, CopyTarget
from proto.tar_in import Incoming, Unpacking
from proto.tar_out import Packing
from runtime.file_owner import creating_as
from runtime.id_map import IdMap
from runtime.openat2 import open_in_root

LINKS_MAX = 40  # path_resolution(7)
# What the kernel makes up: of a folder that holds one it is left out, as `docker cp` does.
_MADE_UP = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs"})


@dataclass(frozen=True)
class ContainerFiles:
    """Blocking; `root` is an open descriptor of the container's root folder."""

    root: int
    users: IdMap
    groups: IdMap
    made_up: frozenset[int]  # st_dev of file systems that are left out of folders

    def source(self, path: str, follow_link: bool) -> tuple[CopySource, Generator[bytes, None, None]]:
        """What is at `path`, and the chunks of its archive, which must be used up or closed. Raises OSError."""
        absolute = _absolute(path)
        descriptor = open_in_root(self.root, absolute, os.O_PATH | (0 if follow_link else os.O_NOFOLLOW))
        info = os.fstat(descriptor)
        kind = stat.S_IFMT(info.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            os.close(descriptor)
            raise CopyRefused(f"{path} is neither a file, a folder nor a link")
        name = posixpath.basename(posixpath.normpath(absolute)) or "root"
        packing = Packing(lambda user, group: (self.users.inside(user), self.groups.inside(group)), self.made_up)
        return CopySource(name=name, folder=kind == stat.S_IFDIR), packing.pack(descriptor, name)

    def unpack(self, target: CopyTarget, incoming: Incoming) -> Unpacking:
        """What was done. Raises OSError, CopyRefused."""
        goal = self._goal(target)

        def open_folder(parts: Sequence[str]) -> int:
            path = posixpath.join(goal.folder, *parts)
            return open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)

        def owner(user: int, group: int) -> tuple[int, int]:
            kept = (user, group) if target.keep_owner else (0, 0)
            return self.users.outside(kept[0]), self.groups.outside(kept[1])

        os.close(open_folder([]))
        unpacking = Unpacking(open_folder, owner, keep_special_bits=True)
        first = target.source.name if target.HasField("source") else None
        with creating_as(*owner(0, 0)):
            unpacking.unpack(incoming, first, goal.name)
        return unpacking

    def _goal(self, target: CopyTarget) -> Goal:
        path, present = self._led_to(_absolute(target.path))
        if not target.HasField("source"):
            if present is not Present.FOLDER:
                raise CopyRefused(f"{target.path} is no folder; an archive is unpacked into one that exists")
            return Goal(path, "")
        source = target.source
        return goal_of(path, present, source.name, source.folder, target.contents)

    def _led_to(self, path: str) -> tuple[str, Present]:
        """Where a path leads in the end if its last part is a link, and what is there."""
        for _ in range(LINKS_MAX):
            try:
                descriptor = open_in_root(self.root, path, os.O_PATH | os.O_NOFOLLOW)
            except FileNotFoundError:
                return path, Present.NOTHING
            try:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISLNK(mode):
                    return path, Present.FOLDER if stat.S_ISDIR(mode) else Present.FILE
                path = posixpath.join(posixpath.dirname(path), os.readlink("", dir_fd=descriptor))
            finally:
                os.close(descriptor)
        raise CopyRefused(f"{path}: too many links lead to each other")


@contextmanager
def files_of(process_id: int) -> Iterator[ContainerFiles]:
    """Those of the container whose first process this is. Raises OSError where it is gone."""
    proc = Path(f"/proc/{process_id}")
    root = os.open(proc / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        users, groups = IdMap.of_process(process_id, "uid"), IdMap.of_process(process_id, "gid")
        yield ContainerFiles(root, users, groups, made_up_devices((proc / "mountinfo").read_text(errors="replace")))
    finally:
        os.close(root)


def made_up_devices(mountinfo: str) -> frozenset[int]:
    """st_dev of what the kernel makes up, from the content of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    found = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in _MADE_UP:
            major, _, minor = before.split()[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _absolute(path: str) -> str:
    """Docker's rule: paths are relative to the root. A slash or /. at the end keeps its meaning."""
    if "\0" in path:
        raise CopyRefused("a path has no NUL")
    return "/" + path.lstrip("/")
