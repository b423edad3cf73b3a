"""What this host knows of the cluster: the items of the leader's last state, kept on disk across restarts.

The copy on disk lets a daemon that restarts without reaching a leader serve names, health checks and the
network as before. It is written at most once a second and replaced atomically; losing it costs nothing but
the time until the leader is heard.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from proto.host_pb2 import HostItem, HostState
from proto.objects_pb2 import Cluster, Image, Node, Task, TaskStatus, Volume

logger = logging.getLogger(__name__)


class HostView:
    """Items by key; changed only by `apply` and `note_status`, on the main thread."""

    def __init__(self) -> None:
        self.revision = 0
        self.complete = False  # a leader's complete state was seen since this daemon started
        self.names_logs = False  # and it names all logs that are to be kept: an older leader's does not
        self._items: dict[str, dict[str, HostItem]] = {}  # kind -> key -> item
        self._versions: dict[str, int] = {}  # kind -> counts its changes
        self._withdrawn_at: dict[str, int] = {}  # task id -> revision without a ready endpoint of it

    def apply(self, state: HostState) -> set[str]:
        """Takes in a state or a change; the kinds of item ("task", "endpoint", ...) that it touched."""
        touched = set()
        told = {item.key for item in state.put}.union(state.removed_keys)
        if state.complete:
            touched = set(self._items)
            self._items = {}
            self.complete = True
            self.names_logs = state.names_logs
        for item in state.put:
            self._put(item)
            touched.add(_kind(item.key))
        for key in state.removed_keys:
            self._items.get(_kind(key), {}).pop(key, None)
            touched.add(_kind(key))
        for kind in touched:
            self._versions[kind] = self.version(kind) + 1
        self.revision = max(state.revision, self.revision) if not state.complete else state.revision
        self._note_withdrawn(None if state.complete else told)
        return touched

    def _note_withdrawn(self, told: set[str] | None) -> None:
        """`told`: keys of which the state said something; None: of all. What is told at once here may have reached
        another host as two changes, the first of which made the endpoint ready: the last of them counts."""
        tasks = {task.meta.id for task in self.tasks}
        for task_id in tasks:
            key = f"endpoint/{task_id}"
            item = self._get(key)
            if item is not None and item.endpoint.ready:
                self._withdrawn_at.pop(task_id, None)
            elif told is None or key in told or task_id not in self._withdrawn_at:
                self._withdrawn_at[task_id] = self.revision
        for task_id in self._withdrawn_at.keys() - tasks:
            del self._withdrawn_at[task_id]

    def note_status(self, task_id: str, status: TaskStatus) -> None:
        """What this host itself knows of a task; the leader does not send it back."""
        before = self._get(f"task/{task_id}")
        if before is not None:
            after = HostItem(key=before.key, task=before.task)
            after.task.status.CopyFrom(status)
            self._put(after)
            self._versions["task"] = self.version("task") + 1

    def withdrawn_at(self, task_id: str) -> int | None:
        """Revision from which on no balancer is told of the task; None while one may be."""
        return self._withdrawn_at.get(task_id)

    def _of(self, kind: str) -> Iterator[HostItem]:
        return (item for _, item in self.items_of(kind))

    def items_of(self, kind: str) -> Iterator[tuple[str, HostItem]]:
        """(key, item) of one kind, in the order in which they came."""
        return iter(self._items.get(kind, {}).items())

    def count(self, kind: str) -> int:
        return len(self._items.get(kind, ()))

    def version(self, kind: str) -> int:
        """Counts up with each change of an item of the kind."""
        return self._versions.get(kind, 0)

    def _get(self, key: str) -> HostItem | None:
        return self._items.get(_kind(key), {}).get(key)

    def _put(self, item: HostItem) -> None:
        self._items.setdefault(_kind(item.key), {})[item.key] = item

    @property
    def cluster(self) -> Cluster | None:
        return next((item.cluster for item in self._of("cluster")), None)

    @property
    def nodes(self) -> list[Node]:
        return [item.node for item in self._of("node")]

    def node(self, node_id: str) -> Node | None:
        item = self._get(f"node/{node_id}")
        return None if item is None else item.node

    @property
    def tasks(self) -> list[Task]:
        return [item.task for item in self._of("task")]

    def keeps_log(self, task_id: str) -> bool:
        """Whether the cluster remembers a task that was assigned to this host."""
        return self._get(f"log/{task_id}") is not None

    @property
    def volumes(self) -> list[Volume]:
        return [item.volume for item in self._of("volume")]

    @property
    def images(self) -> list[Image]:
        return [item.image for item in self._of("image")]

    def to_state(self) -> HostState:
        """All of it as one complete state."""
        put = (item for items in self._items.values() for item in items.values())
        return HostState(complete=True, revision=self.revision, put=put, names_logs=self.names_logs)

    def restore(self, state: HostState) -> None:
        """Starts from a state that was saved; a leader's complete state is still awaited."""
        self.apply(state)
        self.complete = False


def _kind(key: str) -> str:
    return key.partition("/")[0]


def save(view: HostState, path: Path) -> None:
    """Replaces the file at `path` atomically. Not synced: a torn file is ignored at the next start."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(view.SerializeToString())
    temporary.chmod(0o600)
    temporary.replace(path)


def load(path: Path) -> HostState | None:
    """What `save` wrote, or None where there is nothing that can be read."""
    try:
        return HostState.FromString(path.read_bytes())
    except FileNotFoundError:
        return None
    except (DecodeError, OSError) as error:
        logger.warning("the saved state %s is of no use (%s); waiting for the leader's", path, error)
        return None


def merge(states: Iterable[HostState]) -> HostState:
    """One state that does what `states` do one after the other."""
    merged = HostState()
    put: dict[str, HostItem] = {}
    removed: set[str] = set()
    for state in states:
        if state.complete:
            merged.complete = True
            merged.names_logs = state.names_logs
            put, removed = {}, set()
        for item in state.put:
            put[item.key] = item
            removed.discard(item.key)
        for key in state.removed_keys:
            put.pop(key, None)
            removed.add(key)
        merged.revision = max(merged.revision, state.revision)
    merged.put.extend(put.values())
    merged.removed_keys.extend(sorted(removed))
    return merged
