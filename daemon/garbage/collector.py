"""Collects what this host does not need: looks at its file systems, plans, and removes one thing after the other."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import trio

from daemon.agent.image_agent import ImageAgent
from daemon.agent.reports import Reports
from daemon.config import Config
from daemon.doctor.metrics import Registry
from daemon.doctor.subject import Subject
from daemon.errors import Kind, Refused
from daemon.garbage import garbage_plan, items_plan
from daemon.garbage.garbage_plan import CONDITION, FileSystem, GarbagePlan, Going, Item
from daemon.garbage.observation import INCOMING, Need, Observer
from proto import garbage_pb2 as messages
from proto import objects_pb2 as objects
from runtime.errors import NotFound, RuntimeFailure
from storage.errors import StorageFailure
from storage.volumes import LocalVolumes

logger = logging.getLogger(__name__)

LOOK_S = 2.0  # at how full the file systems are
FIRST_ROUND_S = 60.0
ROUND_S = 3600.0  # at what is old
FRUITLESS_S = 10.0  # before a file system that stays full is looked through again; doubled each time
FRUITLESS_S_MAX = 900.0
SAVE_S = 600.0
ITEMS_TOLD_MAX = 1_000
FAILURES_MAX = 20
ALWAYS_ASKED = frozenset({"partial", "unpacked", "upload"})
Failures = (RuntimeFailure, StorageFailure, OSError, Refused)


class Tasks(Protocol):
    """What the host's agent knows of its tasks."""

    def busy_with(self, task_id: str) -> bool:
        """Whether this host is not done with a task."""

    def settled(self) -> bool:
        """Whether all of this host's tasks are known."""


class Collector:
    """Of one host."""

    def __init__(
        self,
        config: Config,
        subject: Subject,
        volumes: LocalVolumes,
        images: ImageAgent,
        reports: Reports,
        tasks: Tasks,
        metrics: Registry,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._settings = config.garbage
        self._state_folder = config.host.state_folder
        self._runtime = subject.runtime
        self._volumes = volumes
        self._images = images
        self._view = subject.view
        self._reports = reports
        self._room = images.room
        self._in_use = tasks.busy_with
        self._settled = tasks.settled
        self._now_unix_ms = now_unix_ms
        self._node_id = subject.identity.node_id
        self._observer = Observer(config, subject.runtime, volumes, subject.view)
        self._collecting = trio.Lock()
        self._unused_unix_ms: dict[str, int] = {}  # image digest -> when it was needed last, or seen first
        self._short: dict[int, str] = {}  # file systems that stay full -> why
        self._freed = metrics.counter("fairway_garbage_freed_bytes_total", "Freed on this host's disks.", ("kind",))
        self._removed = metrics.counter("fairway_garbage_removed_total", "Things that were removed.", ("kind",))

    async def run(self) -> None:
        """Until cancelled."""
        await trio.to_thread.run_sync(self._load)
        next_full_s = saved_s = trio.current_time()
        next_round_s, fruitless_s = next_full_s + FIRST_ROUND_S, FRUITLESS_S
        while True:
            try:
                self._room.folders = await self._observer.image_folders()
                self._note_needed()
                systems = await self._observer.file_systems()
                full = any(each.used_percent >= self._settings.high_percent for each in systems)
                now_s = trio.current_time()
                if self._settled() and (now_s >= next_round_s or (full and now_s >= next_full_s)):
                    next_round_s = now_s + ROUND_S
                    done = await self._round()
                    next_full_s = trio.current_time() + (0 if done else fruitless_s)
                    fruitless_s = FRUITLESS_S if done else min(2 * fruitless_s, FRUITLESS_S_MAX)
                self._report(systems)
                if now_s - saved_s >= SAVE_S:
                    saved_s = now_s
                    await trio.to_thread.run_sync(self._save)
            except Failures as error:
                logger.warning("garbage is not collected: %s", error)
                next_full_s = trio.current_time() + FRUITLESS_S
            await trio.sleep(LOOK_S)

    async def collect(self, request: messages.CollectGarbageRequest) -> messages.CollectedGarbage:
        """For an operator: all that nobody needs, of the kinds that are asked for. Raises Refused."""
        if not self._settled():
            raise Refused("it has not heard from a leader yet", Kind.UNAVAILABLE)
        asked = set(ALWAYS_ASKED)
        asked |= {kind for kind, wanted in (("log", request.logs), ("volume", request.volumes)) if wanted}
        reply = messages.CollectedGarbage()
        try:
            async with self._collecting:
                systems = await self._observer.file_systems()
                _, planned = await self._planned(systems, asked)
                if request.plan_only:
                    reply.removed.extend(_told(each.item, each) for each in planned.going)
                    reply.freed_bytes = sum(each.frees_bytes for each in planned.going)
                else:
                    await self._carry_out(planned, systems, reply)
        except Failures as error:
            raise Refused(str(error), Kind.NOT_POSSIBLE) from error
        return reply

    async def space(self, with_items: bool) -> messages.HostSpace:
        """What is on the disks. Raises Refused."""
        try:
            systems = await self._observer.file_systems()
            self._note_needed()
            items = await self._observer.items(self._need(), self._now_unix_ms())
        except Failures as error:
            raise Refused(str(error), Kind.NOT_POSSIBLE) from error
        settings = self._settings
        reply = messages.HostSpace(high_percent=settings.high_percent, low_percent=settings.low_percent)
        reply.file_systems.extend(
            messages.FileSystemSpace(
                path=each.path,
                holds=each.holds,
                used_bytes=each.used_bytes,
                size_bytes=each.size_bytes,
                used_percent=int(each.used_percent),
            )
            for each in systems
        )
        reply.kinds.extend(_kinds(items))
        if with_items:
            largest = sorted(items, key=lambda item: -item.size_bytes)[:ITEMS_TOLD_MAX]
            reply.items.extend(_told(item) for item in largest)
        return reply

    def _need(self) -> Need:
        view, own = self._view, self._node_id
        nodes = self._hosts_up()
        digests = {image.manifest_digest for image in view.images}
        spare = {digest for digest in digests if items_plan.others_that_keep(view.images, nodes, digest, own)}
        return Need(self._images.needed(), spare, self._unused_unix_ms, self._in_use, self._settled())

    def _hosts_up(self) -> set[str]:
        return {node.meta.id for node in self._view.nodes if node.state != objects.NODE_STATE_DOWN}

    def _note_needed(self) -> None:
        now = self._now_unix_ms()
        for digest in self._images.needed():
            self._unused_unix_ms[digest] = now
        for image in self._view.images:
            self._unused_unix_ms.setdefault(image.manifest_digest, now)
        if self._view.complete:
            known = {image.manifest_digest for image in self._view.images} | self._images.needed()
            self._unused_unix_ms = {each: at for each, at in self._unused_unix_ms.items() if each in known}
            self._room.given_up &= known

    async def _planned(self, systems: Sequence[FileSystem], asked: Collection[str]) -> tuple[list[Item], GarbagePlan]:
        now = self._now_unix_ms()
        self._note_needed()
        items = await self._observer.items(self._need(), now)
        settings = self._settings
        planned = garbage_plan.plan(systems, items, now, settings.high_percent, settings.low_percent, asked)
        return items, planned

    async def _round(self) -> bool:
        """Whether no file system stays full."""
        async with self._collecting:
            systems = await self._observer.file_systems()
            items, planned = await self._planned(systems, ())
            await self._carry_out(planned, systems, messages.CollectedGarbage())
            after = await self._observer.file_systems()
        full = [each for each in after if each.used_percent >= self._settings.high_percent]
        self._short = {
            each.id: garbage_plan.what_holds(items, each.id) or "nothing on it is Fairway's" for each in full
        }
        return not full

    async def _carry_out(
        self, planned: GarbagePlan, systems: Sequence[FileSystem], reply: messages.CollectedGarbage
    ) -> None:
        before = {each.id: each for each in systems}
        for going in planned.going:
            item = going.item
            now = before.get(item.file_system)
            if going.why == "disk" and now is not None and now.used_percent <= self._settings.low_percent:
                continue  # what went before freed more than it seemed
            try:
                removed = await self._remove(item)
            except NotFound:
                continue
            except Failures as error:
                logger.warning("%s %s cannot be removed: %s", item.kind, item.name, error)
                if len(reply.failures) < FAILURES_MAX:
                    reply.failures.append(f"{item.kind} {item.name}: {error}")
                continue
            if not removed:
                continue
            after = {each.id: each for each in await self._observer.file_systems()}
            before = after
            self._freed.add(item.kind, amount=going.frees_bytes)
            self._removed.add(item.kind)
            reply.freed_bytes += going.frees_bytes
            reply.removed.append(_told(item, going))
            logger.info("freed %d KiB: %s %s (%s)", going.frees_bytes >> 10, item.kind, item.name, _WHY[going.why])

    async def _remove(self, item: Item) -> bool:
        """False where it is needed again."""
        match item.kind:
            case "partial":
                await self._runtime.spaces.drop_loose()
            case "unpacked":
                return await self._images.pack(item.id)
            case "image":
                others = items_plan.others_that_keep(self._view.images, self._hosts_up(), item.id, self._node_id)
                if not others or not await self._images.give_up(item.id, others):
                    return False
            case "log":
                if self._in_use(item.id):
                    return False
                await self._runtime.remove_logs(item.id)
            case "volume":
                if item.id in {volume.meta.id for volume in self._view.volumes}:
                    return False
                await self._volumes.remove(item.id)
            case "upload":
                await trio.to_thread.run_sync((self._state_folder / INCOMING / item.id).unlink, True)
        return True

    def _report(self, systems: Sequence[FileSystem]) -> None:
        high = self._settings.high_percent
        full = {each.id: each for each in systems if each.used_percent >= high}
        self._short = {each: why for each, why in self._short.items() if each in full}
        self._reports.conditions(
            CONDITION,
            [
                objects.NodeCondition(
                    kind=CONDITION,
                    message=f"{full[each].path}: more than {high} % is used, and nothing more can be freed ({why})",
                )
                for each, why in sorted(self._short.items())
            ],
        )

    @property
    def _path(self) -> Path:
        return self._state_folder / "images-used.json"

    def _load(self) -> None:
        try:
            found = json.loads(self._path.read_text())
            self._unused_unix_ms.update((str(key), int(value)) for key, value in found.items())
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, TypeError) as error:
            logger.warning("%s cannot be read, images count as used now: %s", self._path, error)

    def _save(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._unused_unix_ms))
        temporary.replace(self._path)


_WHY: Mapping[str, str] = {
    "age": "unused for long",
    "disk": "the disk is full beyond its high watermark",
    "asked": "an operator asked",
}


def _told(item: Item, going: Going | None = None) -> messages.SpaceItem:
    return messages.SpaceItem(
        kind=item.kind,
        id=item.id,
        name=item.name,
        size_bytes=item.size_bytes,
        needed_by=item.needed_by,
        unused_unix_ms=0 if item.needed_by else item.unused_unix_ms,
        why=going.why if going is not None else "",
        frees_bytes=going.frees_bytes if going is not None else 0,
    )


def _kinds(items: Sequence[Item]) -> list[messages.SpaceKind]:
    reclaimable = garbage_plan.reclaimable_bytes(items)
    found = []
    for kind in garbage_plan.ORDER:
        of_kind = [item for item in items if item.kind == kind]
        parts = {(item.file_system, part): size for item in of_kind for part, size in item.parts.items()}
        found.append(
            messages.SpaceKind(
                kind=kind,
                count=len(of_kind),
                needed_count=sum(bool(item.needed_by) for item in of_kind),
                size_bytes=sum(parts.values()),
                reclaimable_bytes=reclaimable.get(kind, 0),
            )
        )
    return found
