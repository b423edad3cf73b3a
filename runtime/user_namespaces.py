"""Containers in a user namespace of their own (user_namespaces(7)): their root is nobody on the host.

Images and volumes stay as they are, owned as without it: the container sees them through mounts that shift their
owners (id_mapped_mounts.py), made for the moment in which runc takes them over. All containers of a host have the
same range of numbers.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from proto import containerd_pb2 as api
from runtime import id_mapped_mounts as mapped
from runtime import mount_trees as trees
from runtime.errors import InvalidRequest, MissingFeature
from runtime.model import BindMount, ContainerRequest

log = logging.getLogger(__name__)

IDS = 65_536  # users and groups of a container
_FOLDERS, _FILES, _FILE = "m", "f", "file"  # what a stage is made of: mounted on, and what holds one to mount on
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes spaces: proc_pid_mountinfo(5)
_PINGS = "net.ipv4.ping_group_range"
_MAKING_S_MAX = 10.0
_NS_GET_USERNS = 0xB701  # linux/nsfs.h
T = TypeVar("T")


class UserNamespace:
    """What 0 to 65,535 within are outside: `first` and the numbers after it. Made when it is first needed."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._descriptor: int | None = None
        self._making = threading.Lock()

    def descriptor(self) -> int:
        """Of /proc/PID/ns/user; blocking. Raises OSError, subprocess.SubprocessError."""
        with self._making:
            if self._descriptor is None:
                self._descriptor = _made(self.first)
            return self._descriptor


def check(first: int, folder: Path) -> str:
    """Why containers cannot have user namespaces here, with images and volumes on the file system of `folder`; empty:
    they can. Blocking."""
    if first < IDS:
        return f"containerd.user_ids_first is {first}; below {IDS} are users of the host"
    release = os.uname().release.split("-")[0].split(".")
    if (int(release[0]), int(release[1])) < (5, 19):
        return "layers of images can be shifted by Linux 5.19 and newer only"
    probe = folder / ".user-namespace-probe"
    try:
        probe.mkdir(parents=True, exist_ok=True)
        try:
            mapped.mount_mapped(probe, probe, UserNamespace(first).descriptor())
            trees.unmount(probe)
        finally:
            probe.rmdir()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{error}"
    return ""


class Staging:
    """For all containers of a host; `first` 0: none of them can have a user namespace."""

    def __init__(self, first: int, folder: Path) -> None:
        self._namespace = UserNamespace(first)
        self._folder = folder

    def clear(self) -> None:
        """What a daemon left that ended meanwhile; blocking."""
        for stage in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                _remove(stage)
            except OSError as error:
                log.warning("%s is left: %s", stage, error)

    def make_network(self, path: Path) -> None:
        """A network namespace mounted on `path`, with the user namespace that it belongs to and keeps alive, for one
        container. Blocking. Raises OSError."""

        def keep(process: Path) -> None:
            _map(process, self._namespace.first)
            path.touch(mode=0o600, exist_ok=True)
            trees.bind(process / "ns/net", path)

        _in_child(["unshare", "--user", "--net", "cat"], "net", keep)

    @asynccontextmanager
    async def staged(self, request: ContainerRequest) -> AsyncIterator[tuple[ContainerRequest, Stage | None]]:
        """The request as runc is to see it, and None where it asks for no user namespace. Raises RuntimeFailure,
        OSError."""
        if not request.spec.isolation.user_namespace:
            yield request, None
            return
        if self._namespace.first < IDS:
            words = f"containerd.user_ids_first of this host's fairwayd.toml is {self._namespace.first}"
            raise MissingFeature(f"userns_mode private: {words}; write one from {IDS} on")
        stage = Stage(self._namespace, self._folder / request.id)
        try:
            yield await trio.to_thread.run_sync(stage.prepare, request), stage
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(stage.remove)


class Stage:
    """What one container is made from, in a folder of its own until it is made."""

    def __init__(self, namespace: UserNamespace, folder: Path) -> None:
        self.first = namespace.first
        self._namespace = namespace
        self._folder = folder
        self._owner: int | None = None
        self._count = 0

    def prepare(self, request: ContainerRequest) -> ContainerRequest:
        """The request with mounts that are shifted; blocking. Its files, which are made for it alone, get the shifted
        owner itself: the file systems in memory that they may be on cannot shift. Raises MissingFeature, OSError."""
        for file in request.files:
            info = file.source.stat()
            if info.st_uid < self._namespace.first:
                os.chown(file.source, self._namespace.first + info.st_uid, self._namespace.first + info.st_gid)
        mounts = [
            dataclasses.replace(mount, source=self._place(mount.source)) if isinstance(mount, BindMount) else mount
            for mount in request.mounts
        ]
        return dataclasses.replace(request, mounts=tuple(mounts))

    def root(self, mounts: Sequence[api.Mount]) -> Sequence[api.Mount]:
        """The container's root file system, its image's layers shifted; blocking. Raises MissingFeature, OSError."""
        if len(mounts) != 1 or mounts[0].type != "overlay":
            raise MissingFeature("userns_mode private needs the snapshotter overlayfs and an image with layers")
        options = []
        for option in mounts[0].options:
            name, _, value = option.partition("=")
            if name == "lowerdir":
                layers = [str(self._place(Path(layer))) for layer in value.split(":")]
                option = f"lowerdir={':'.join(layers)}"
            elif name == "upperdir":
                info = Path(value).stat()
                if info.st_uid < self._namespace.first:
                    os.chown(value, self._namespace.first + info.st_uid, self._namespace.first + info.st_gid)
            options.append(option)
        return [api.Mount(type="overlay", source=mounts[0].source, options=options)]

    def apply(self, oci: dict[str, Any], network_namespace: Path | None) -> None:
        """Makes it so in the specification. Its user namespace is the one that its network namespace belongs to, or its
        root would have no say there, and nobody could enter both. Raises InvalidRequest, OSError."""
        linux = oci["linux"]
        users = {"type": "user"}
        if network_namespace is not None:
            self._owner = _owner_of(network_namespace)
            users["path"] = f"/proc/{os.getpid()}/fd/{self._owner}"
        if all(each["type"] != "user" for each in linux["namespaces"]):  # else it is another container's (joining.py)
            linux["namespaces"].append(users)
        for kind in ("uidMappings", "gidMappings"):
            linux[kind] = [{"containerID": 0, "hostID": self.first, "size": IDS}]
        if "kernel.domainname" in linux["sysctl"]:
            raise InvalidRequest("domainname: it cannot be set in a user namespace; leave out one of the two")
        if _PINGS in linux["sysctl"]:
            linux["sysctl"][_PINGS] = f"0 {IDS - 1}"
        for mount in oci["mounts"]:
            if mount["type"] == "bind":
                mount["options"] += _locked(mount["source"])

    def remove(self) -> None:
        """Blocking; safe to repeat. Who has mounted something of it keeps it."""
        owner, self._owner = self._owner, None
        if owner is not None:
            os.close(owner)
        try:
            _remove(self._folder)
        except OSError as error:  # the container is made all the same
            log.warning("%s is left: %s", self._folder, error)

    def _place(self, source: Path) -> Path:
        if source.is_dir():
            target = self._new_folder(_FOLDERS)
        else:
            target = self._new_folder(_FILES) / _FILE
            target.touch()
        try:
            mapped.mount_mapped(source, target, self._namespace.descriptor())
        except OSError as error:
            raise MissingFeature(
                f"userns_mode private: the owners of {source} cannot be shifted ({error.strerror}): its file system "
                "or this kernel does not have that"
            ) from error
        return target

    def _new_folder(self, kind: str) -> Path:
        folder = self._folder / f"{kind}{self._count}"
        self._count += 1
        folder.mkdir(parents=True, mode=0o711)
        return folder


def make_network_within(user_namespace: str, path: Path) -> None:
    """A network namespace mounted on `path` that belongs to a user namespace, given by a path. Blocking. Raises
    OSError."""

    def keep(process: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        trees.bind(process / "ns/net", path)

    _in_child(["nsenter", f"--user={user_namespace}", "unshare", "--net", "cat"], "net", keep)


def _owner_of(namespace: Path) -> int:
    """The user namespace that a namespace belongs to, as a descriptor (ioctl_ns(2))."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, _NS_GET_USERNS)
    finally:
        os.close(descriptor)


def _locked(source: str) -> list[str]:
    """What a mount forbids, which must be asked for again: a user namespace may not allow it (mount_namespaces(7))."""
    flags = os.statvfs(source).f_flag
    forbidden = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec", os.ST_RDONLY: "ro"}
    return [word for flag, word in forbidden.items() if flags & flag]


def _remove(folder: Path) -> None:
    """Only what is empty is removed: what is mounted still, if anything is, is somebody's data."""
    if not folder.is_dir():
        return
    prefix = f"{folder}/"
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = _OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split()[4])
        if place.startswith(prefix):
            trees.unmount(Path(place))
    for place_of_one in folder.iterdir():
        if place_of_one.name.startswith(_FILES):
            (place_of_one / _FILE).unlink(missing_ok=True)
        place_of_one.rmdir()
    folder.rmdir()


def _made(first: int) -> int:
    def keep(process: Path) -> int:
        _map(process, first)
        return os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)

    return _in_child(["unshare", "--user", "cat"], "user", keep)


def _map(process: Path, first: int) -> None:
    for kind in ("uid_map", "gid_map"):
        (process / kind).write_text(f"0 {first} {IDS}\n")


def _in_child(command: Sequence[str], kind: str, keep: Callable[[Path], T]) -> T:
    """Of a program that has entered a namespace of its own: entering a user namespace is not for a process of several
    threads. `command` ends with its input. Raises OSError."""
    own = Path("/proc/self/ns", kind).stat().st_ino
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin is not None
    try:
        process, deadline = Path(f"/proc/{child.pid}"), time.monotonic() + _MAKING_S_MAX
        while (process / "ns" / kind).stat().st_ino == own:
            if child.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{' '.join(command)} makes no {kind} namespace; the log of fairwayd has its words")
            time.sleep(0.002)
        return keep(process)
    finally:
        child.stdin.close()
        child.wait()
