"""Has a container share namespaces of a process that runs: in a specification, and with what holds them meanwhile.

A namespace is named by a descriptor that is open, not by the number of a process, which is another's once that has
ended. What a container has in /dev/shm goes with its IPC: that is mounted once more, and taken from within the
container's own mount namespace, since nobody else may (mount_namespaces(7)).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from runtime import mount_trees as trees
from runtime.errors import CannotStart
from runtime.model import BindMount, ContainerRequest
from runtime.user_namespaces import make_network_within

log = logging.getLogger(__name__)

NETWORK, PROCESSES, IPC, USERS = "network", "pid", "ipc", "user"
ALL = (NETWORK, PROCESSES, IPC)
SHM = "/dev/shm"  # noqa: S108 the container's
_FILES = {NETWORK: "net"}
_SHM_OPTIONS = ["bind", "private", "rw", "nosuid", "noexec", "nodev"]


@asynccontextmanager
async def held(
    request: ContainerRequest, folder: Path, first_process: Callable[[str], Awaitable[int]]
) -> AsyncIterator[Joined]:
    """What a container joins, until it has done so. `folder` is that of user_namespaces.Staging, which clears it of
    what a daemon has left; `first_process`, of a container by its id, raises NotFound where that does not run. Raises
    NotFound, CannotStart."""
    if request.joined is None:
        yield Joined((), folder)
        return
    joined = Joined(request.joined.kinds, folder / f"{request.id}-joined" / "m0")
    try:
        await joined.hold(request.joined.container_id, first_process)
        yield joined
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(joined.release)


@asynccontextmanager
async def network_maker(
    container_id: str, first_process: Callable[[str], Awaitable[int]]
) -> AsyncIterator[Callable[[Path], None]]:
    """What makes a network namespace for a container that joins the user namespace of another one: it belongs to that,
    or the container would have no say in it. Raises NotFound, CannotStart."""
    joined = Joined((USERS,), None)
    try:
        await joined.hold(container_id, first_process)
        yield lambda path: make_network_within(joined.path(USERS), path)
    finally:
        joined.release()


class Joined:
    """Namespaces of the first process of a container, `kinds` of ALL and USERS, held until `release`. `folder` is for
    its /dev/shm."""

    def __init__(self, kinds: Sequence[str], folder: Path | None) -> None:
        self._kinds = kinds
        self._folder = folder
        self._descriptors: dict[str, int] = {}
        self._shm = False

    async def hold(self, container_id: str, first_process: Callable[[str], Awaitable[int]]) -> None:
        """Raises NotFound where the container does not run, CannotStart."""
        process_id = await first_process(container_id)
        try:
            await trio.to_thread.run_sync(self._open, process_id)
            if await first_process(container_id) != process_id:  # the number was its own all the time, if it is now
                raise CannotStart("the container whose namespaces it is to share has ended")
            if IPC in self._kinds:
                await trio.to_thread.run_sync(self._take_shm)
        except OSError as error:
            raise CannotStart(f"namespaces of container {container_id} cannot be shared: {error}") from error

    def applied(self, oci: dict[str, Any]) -> dict[str, Any]:
        """The specification, made for namespaces of its own, with these in it. Where the network is shared, settings of
        the kernel stay the other container's."""
        if not self._kinds:
            return oci
        linux = oci["linux"]
        others = [each for each in linux["namespaces"] if each["type"] not in self._kinds]
        shared = [{"type": kind, "path": self.path(kind)} for kind in self._kinds]
        linux["namespaces"] = [*others, *shared]
        if NETWORK in self._kinds:
            linux["sysctl"] = {}
        if self._shm:
            mount = {"destination": SHM, "type": "bind", "source": str(self._folder), "options": list(_SHM_OPTIONS)}
            oci["mounts"] = [mount if each["destination"] == SHM else each for each in oci["mounts"]]
        return oci

    def checked(self, request: ContainerRequest) -> ContainerRequest:
        """The request, with what else is to be compared once the container is made (mounted.py)."""
        if not self._shm or self._folder is None:
            return request
        info = self._folder.stat()
        shm = BindMount(self._folder, SHM, identity=(info.st_dev, info.st_ino))
        return dataclasses.replace(request, mounts=(*request.mounts, shm))

    def path(self, kind: str) -> str:
        """Of a namespace, for any process of the host."""
        return f"/proc/{os.getpid()}/fd/{self._descriptors[kind]}"

    def release(self) -> None:
        """Blocking; safe to repeat. Who has joined keeps what it has joined."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
        try:
            if self._folder is not None and self._folder.is_dir():
                if self._shm:
                    trees.unmount(self._folder)
                self._folder.rmdir()
                self._folder.parent.rmdir()
        except OSError as error:  # the container is made all the same
            log.warning("%s is left: %s", self._folder, error)

    def _open(self, process_id: int) -> None:
        for kind in [*self._kinds, *(["mnt"] if IPC in self._kinds else [])]:
            path = f"/proc/{process_id}/ns/{_FILES.get(kind, kind)}"
            self._descriptors[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _take_shm(self) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, mode=0o711, exist_ok=True)
        tree = _tree_within(self._descriptors.pop("mnt"), SHM)
        try:
            trees.attach(tree, self._folder)
        finally:
            os.close(tree)
        self._shm = True


def _tree_within(mount_namespace: int, path: str) -> int:
    """What is mounted at a path of that mount namespace, once more, as a descriptor; that of the namespace is closed.
    By a thread that does nothing else and ends."""
    found: list[int] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            trees.enter_mount_namespace(mount_namespace)
            found.append(trees.clone(Path(path), recursive=False))
        except OSError as error:
            errors.append(error)
        finally:
            os.close(mount_namespace)

    thread = threading.Thread(target=run, name="mount namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]
