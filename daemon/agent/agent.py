"""This host's part: takes in what the leader assigns, runs a `TaskRunner` for each task, reports.

It also finds what is here and should not be: containers and task networks that no task of the cluster claims
are stopped and removed, once a leader's complete state was seen.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

import trio

from daemon.agent import host_view
from daemon.agent.condition_agent import ClockWatch
from daemon.agent.debug_containers import LABEL_DEBUG
from daemon.agent.floating_agent import FloatingAgent
from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.load_agent import LoadAgent
from daemon.agent.log_agent import LogAgent
from daemon.agent.network_agent import LEADER_WAIT_S_MAX, NetworkAgent
from daemon.agent.reports import Reports
from daemon.agent.task_host import ended
from daemon.agent.task_runner import TaskHost, TaskRunner
from daemon.agent.volume_agent import VolumeAgent
from daemon.errors import Kind, Refused
from proto import objects_pb2 as objects
from proto.host_pb2 import HostInstruction, HostReport, HostState
from runtime import log_ids
from runtime.errors import NotFound, RuntimeFailure
from runtime.model import EventKind, ObservedContainer
from runtime.runtime import Runtime

logger = logging.getLogger(__name__)

SAVE_INTERVAL_S = 1.0
LOOK_INTERVAL_S = 30.0  # containers are listed at least this often, whatever events said
RETRY_S = 1.0
EXIT_LOOK_S_MAX = 5.0
GONE_REMEMBERED_MAX = 1_000  # tasks; a list of containers is on its way for less time than so many take to end
OLDER_REFUSED_S = 20.0  # a leader that hears no majority leaves its office far sooner
ALL_KINDS = frozenset({"image", "volume", "floating", "log"})


class Agent:
    """The `SessionHost` of this host (leader_connection.py)."""

    def __init__(
        self,
        runtime: Runtime,
        network: NetworkAgent,
        images: ImageAgent,
        volumes: VolumeAgent,
        floating: FloatingAgent,
        view: HostView,
        reports: Reports,
        view_path: Path,
        address: Callable[[], str],
        now_unix_ms: Callable[[], int],
        withdraw_wait_ms_max: int,
    ) -> None:
        self.removed_from_cluster = trio.Event()
        self.view = view
        self._runtime = runtime
        self._network = network
        self._images = images
        self._volumes = volumes
        self._floating = floating
        self._reports = reports
        self._clock = ClockWatch(reports)
        self._view_path = view_path
        self._address = address
        self._now_unix_ms = now_unix_ms
        self._withdraw_wait_ms_max = withdraw_wait_ms_max
        self._host: TaskHost | None = None
        self._runners: dict[str, TaskRunner] = {}
        self._logs = LogAgent(runtime, view, self._runners.__contains__)
        self._containers: dict[str, ObservedContainer] = {}
        self._containers_known = False
        self._gone: deque[str] = deque(maxlen=GONE_REMEMBERED_MAX)  # ids, which are never used again
        self._saved_counts = False
        self._told_s = trio.current_time()  # when the view was last told
        self._cluster_network_revision = 0
        self._withdrawals_changed = trio.Event()
        self._unsaved = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._leaving = False

    # ---- what the leader's session calls ------------------------------------------------------------

    def first_report(self) -> HostReport:
        """See SessionHost."""
        return self._reports.first(self._address())

    def address(self) -> str:
        """See SessionHost."""
        return self._address()

    def next_report(self) -> HostReport:
        """See SessionHost."""
        return self._reports.next()

    async def wait_report(self) -> None:
        """See SessionHost."""
        await self._reports.wait()

    async def instructed(self, instruction: HostInstruction) -> None:
        """See SessionHost."""
        if instruction.HasField("state"):
            self._refuse_older(instruction.state)
            self._view_changed(self.view.apply(instruction.state))
            self._unsaved.set()
        if instruction.cluster_network_revision != self._cluster_network_revision:
            self._cluster_network_revision = instruction.cluster_network_revision
            self._note_withdrawals()

    def _refuse_older(self, state: HostState) -> None:
        """Raises ConnectionAbortedError for the state of a leader that does not know that another one has followed it.
        It cannot be so for long: after that, whatever the cluster says holds."""
        now_s = trio.current_time()
        if state.complete and state.revision < self.view.revision and now_s < self._told_s + OLDER_REFUSED_S:
            raise ConnectionAbortedError(
                f"the leader stands at revision {state.revision}, and another one was at {self.view.revision}"
            )
        self._told_s = now_s

    def acknowledged(self, sent_s: float, leader_unix_ms: int) -> None:
        """See SessionHost."""
        self._floating.acknowledged(sent_s)
        self._clock.answered(trio.current_time() - sent_s, leader_unix_ms, self._now_unix_ms())

    def removed(self) -> None:
        """See SessionHost."""
        self.removed_from_cluster.set()

    # ---- what task runners ask -----------------------------------------------------------------------

    def withdrawn(self, task_id: str) -> bool:
        """Whether no balancer of a host that is up sends new connections to the task."""
        if self._leaving:
            return True  # the others have dropped this host, and none of them tells it anything any more
        revision = self.view.withdrawn_at(task_id)
        return revision is not None and self._cluster_network_revision >= revision

    def withdrawals_changed(self) -> trio.Event:
        """Set when `withdrawn` may answer otherwise than before."""
        return self._withdrawals_changed

    def _note_withdrawals(self) -> None:
        self._withdrawals_changed.set()
        self._withdrawals_changed = trio.Event()

    # ---- what operators ask --------------------------------------------------------------------------

    async def stop_task(self, task_id: str, grace_ms: int) -> objects.TaskStatus:
        """Ends a task as if it had ended by itself, once no balancer sends to it; how it ended. `grace_ms` 0: as its
        service says. Raises Refused where it does not run here."""
        runner = self._runners.get(task_id)
        if runner is None or not runner.end_for_operator(grace_ms):
            raise Refused("the task does not run on its host any more", Kind.NOT_POSSIBLE)
        await runner.over.wait()
        return runner.status

    # ---- what the garbage collector asks -------------------------------------------------------------

    def busy_with(self, task_id: str) -> bool:
        """Whether this host is not done with a task."""
        return task_id in self._runners

    def settled(self) -> bool:
        """Whether all of this host's tasks are known: from a leader, and from containerd."""
        return self.view.complete and self._containers_known

    # ---- the loops -----------------------------------------------------------------------------------

    async def run(self, host: TaskHost) -> None:
        """Runs everything of this host until cancelled; `host` does the work on containers."""
        self._host = host
        saved = await trio.to_thread.run_sync(host_view.load, self._view_path)
        if saved is not None and not self.view.complete:
            self.view.restore(saved)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._network.run)
            nursery.start_soon(self._images.run)
            nursery.start_soon(self._volumes.run)
            nursery.start_soon(self._floating.run)
            nursery.start_soon(LoadAgent(self.view, self._reports).run)
            nursery.start_soon(self._logs.run)
            nursery.start_soon(self._save)
            nursery.start_soon(self._follow_events)
            nursery.start_soon(self._list_regularly)
            self._view_changed(ALL_KINDS)
            # What was saved may be a second old; it counts where no leader says better within this time.
            await trio.sleep(LEADER_WAIT_S_MAX)
            self._saved_counts = True
            self._reconcile()

    async def stop_all(self) -> None:
        """Stops and removes every task: this host is not part of the cluster any more."""
        self._leaving = True  # what the view says is of before: by it, the next look would start all of them again
        self._note_withdrawals()
        runners = list(self._runners.values())
        for runner in runners:
            runner.update(None)
        for runner in runners:
            await runner.finished.wait()

    def _view_changed(self, kinds: Collection[str]) -> None:
        self._network.changed()  # also where nothing of it changed: it stands at the new revision then
        if "image" in kinds:
            self._images.changed()
        if "volume" in kinds:
            self._volumes.changed()
        if "floating" in kinds:
            self._floating.changed()
        if "log" in kinds:
            self._logs.changed()
        self._note_withdrawals()
        self._reconcile()

    def _reconcile(self) -> None:
        """A runner for every task of the view and every container that nobody claims. No I/O."""
        if not self._containers_known or self._nursery is None or self._leaving:
            return
        if not self.view.complete and not self._saved_counts:
            return
        wanted = {task.meta.id: task for task in self.view.tasks}
        for task_id, task in wanted.items():
            if task_id in self._runners:
                self._runners[task_id].update(task)
            elif self.view.complete or task_id in self._containers or task.status.state >= objects.TASK_STATE_RUNNING:
                self._start_runner(task)  # of what was saved, nothing is begun: it may be over and its volume removed
        for task_id, runner in list(self._runners.items()):
            if task_id not in wanted:
                runner.update(None)
                if runner.gone:
                    del self._runners[task_id]
                    self._reports.forget_task(task_id)
        if self.view.complete:
            for container_id in self._containers.keys() - self._runners.keys():
                if log_ids.task_of(container_id) in self._runners:
                    continue  # an init task's
                logger.warning("removing container %s: the cluster knows no such task", container_id)
                self._start_runner(_unclaimed(container_id))

    def _start_runner(self, task: objects.Task) -> None:
        assert self._host is not None and self._nursery is not None
        runner = TaskRunner(
            task,
            self._host,
            self._reported,
            self._now_unix_ms,
            self._withdraw_wait_ms_max,
        )
        runner.observe(self._containers.get(task.meta.id))
        self._runners[task.meta.id] = runner
        self._nursery.start_soon(self._run_task, runner)

    async def _run_task(self, runner: TaskRunner) -> None:
        await runner.run()
        self._gone.append(runner.task.meta.id)
        self._containers.pop(runner.task.meta.id, None)
        if runner.task.meta.id not in {task.meta.id for task in self.view.tasks}:
            self._runners.pop(runner.task.meta.id, None)
            self._reports.forget_task(runner.task.meta.id)
            self._logs.changed()

    def _reported(self, runner: TaskRunner) -> None:
        self._reports.task(runner.task.meta.id, runner.status, runner.gone, self._now_unix_ms())
        self.view.note_status(runner.task.meta.id, runner.status)

    async def _follow_events(self) -> None:
        async for event in self._runtime.subscribe():
            if event.kind is EventKind.RESYNC:
                await self._list()
            elif event.kind is EventKind.EXIT:
                await self._note_exit(event.container_id)

    async def _list_regularly(self) -> None:
        while True:
            await self._list()
            await trio.sleep(LOOK_INTERVAL_S if self._containers_known else RETRY_S)

    async def _list(self) -> None:
        try:
            listed = await self._runtime.list()
        except RuntimeFailure as error:
            logger.warning("containers cannot be listed: %s", error)
            return
        # What was removed while the list was on its way is no container that nobody claims.
        found = {
            container.id: container
            for container in listed
            if log_ids.task_of(container.id) not in self._gone and LABEL_DEBUG not in container.labels
        }
        self._containers = found
        self._containers_known = True
        for task_id, runner in self._runners.items():
            runner.observe_listed(found.get(task_id))
        self._reconcile()

    async def _note_exit(self, container_id: str) -> None:
        runner = self._runners.get(container_id)
        if runner is None:
            return
        try:
            with trio.move_on_after(EXIT_LOOK_S_MAX):
                runner.observe(ended(container_id, await self._runtime.wait(container_id)))
        except NotFound:
            runner.observe(None)
        except RuntimeFailure as error:
            logger.warning("how container %s ended cannot be seen: %s", container_id, error)

    async def _save(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved = trio.Event()
            state = self.view.to_state()
            try:
                await trio.to_thread.run_sync(host_view.save, state, self._view_path)
            except OSError as error:
                logger.warning("the state of this host cannot be saved: %s", error)
            await trio.sleep(SAVE_INTERVAL_S)


def _unclaimed(container_id: str) -> objects.Task:
    task = objects.Task(desired=objects.DESIRED_STATE_STOPPED, desired_message="not known to the cluster")
    task.meta.id = task.meta.name = container_id
    task.status.state = objects.TASK_STATE_RUNNING
    return task
