"""What this host has to tell the leader: collected here, sent by the session."""

from __future__ import annotations

import trio

from daemon.identity.host_description import fairway_version
from proto import objects_pb2 as objects
from proto.host_pb2 import EncryptionReport, HostReport, TaskLoad, TaskReport
from raft.features import FEATURE_LEVEL


class Reports:
    """The newest status of every task, and which of them the leader has not been sent in this session."""

    def __init__(self) -> None:
        self.network_revision = 0
        self._tasks: dict[str, TaskReport] = {}
        self._unsent: set[str] = set()
        self._images: list[str] = []
        self._images_unsent = False
        self._description: objects.NodeDescription | None = None
        self._description_unsent = False
        self._devices: list[objects.HostDevice] = []
        self._conditions: dict[str, list[objects.NodeCondition]] = {}
        self._conditions_unsent = False
        self._encryption: EncryptionReport | None = None
        self._encryption_unsent = False
        self._lacking = ""  # besides what the description says
        self._loads: list[TaskLoad] = []
        self._volumes_discarded: list[str] = []
        self._volumes_unsent = False
        self._news = trio.Event()

    def task(self, task_id: str, status: objects.TaskStatus, gone: bool, now_unix_ms: int) -> None:
        """Notes a task's status; `gone`: nothing of it is left here."""
        report = TaskReport(task_id=task_id, status=status, gone=gone)
        report.status.reported_unix_ms = now_unix_ms
        self._tasks[task_id] = report
        self._unsent.add(task_id)
        self._news.set()

    def forget_task(self, task_id: str) -> None:
        """The cluster does not know the task any more: nobody needs to hear of it."""
        self._tasks.pop(task_id, None)
        self._unsent.discard(task_id)

    def images(self, digests: list[str]) -> None:
        """Notes which images are held."""
        if digests != self._images:
            self._images, self._images_unsent = digests, True
            self._news.set()

    def volumes_discarded(self, ids: list[str]) -> None:
        """Notes the volumes whose data is gone from here as the cluster wished."""
        if ids != self._volumes_discarded:
            self._volumes_discarded, self._volumes_unsent = ids, True
            self._news.set()

    def description(self, description: objects.NodeDescription) -> None:
        """Notes what the host is and has."""
        if description != self._description:
            self._description, self._description_unsent = description, True
            self._news.set()

    def devices(self, devices: list[objects.HostDevice]) -> None:
        """Notes the CDI devices of the host; they go with its description."""
        if devices != self._devices:
            self._devices, self._description_unsent = devices, True
            self._news.set()

    def conditions(self, source: str, conditions: list[objects.NodeCondition]) -> None:
        """Notes all that is wrong here as one part of the daemon, `source`, sees it; an empty list ends it."""
        if conditions != self._conditions.get(source):  # the first word counts, also when all is well
            self._conditions[source] = conditions
            self.repeat_conditions()

    def loads(self, loads: list[TaskLoad]) -> None:
        """Notes how busy tasks are; goes with the next report, which is never later than a heartbeat."""
        self._loads = loads

    def repeat_conditions(self) -> None:
        """Has all conditions sent again: the leader leaves out paths to hosts that are down at the time."""
        self._conditions_unsent = True
        self._news.set()

    def encryption(self, report: EncryptionReport, lacking: str) -> None:
        """Notes the keys of this host's devices, and what it lacks to send to others, in words: then it gets no
        tasks."""
        if report != self._encryption:
            self._encryption, self._encryption_unsent = report, True
            self._news.set()
        if lacking != self._lacking:
            self._lacking, self._description_unsent = lacking, True
            self._news.set()

    def network(self, revision: int) -> None:
        """Notes at which revision balancers and DNS stand."""
        if revision != self.network_revision:
            self.network_revision = revision
            self._news.set()

    async def wait(self) -> None:
        """Returns when there is something to send."""
        await self._news.wait()

    def first(self, address: str) -> HostReport:
        """Everything, for the start of a session."""
        report = HostReport(
            network_revision=self.network_revision,
            tasks=self._tasks.values(),
            images=self._images,
            images_changed=True,
            address=address,
            conditions=self._all_conditions(),
            conditions_changed=bool(self._conditions),
            feature_level=FEATURE_LEVEL,
            fairway_version=fairway_version(),
            encryption=self._encryption,
            volumes_discarded=self._volumes_discarded,
        )
        self._describe(report)
        self._sent()
        return report

    def next(self) -> HostReport:
        """What is new since the last report of this session."""
        report = HostReport(
            network_revision=self.network_revision,
            tasks=[self._tasks[task_id] for task_id in sorted(self._unsent)],
            images_changed=self._images_unsent,
            conditions=self._all_conditions() if self._conditions_unsent else (),
            conditions_changed=self._conditions_unsent,
            loads=self._loads,
            volumes_discarded=self._volumes_discarded if self._volumes_unsent else (),
        )
        self._loads = []
        if self._images_unsent:
            report.images.extend(self._images)
        if self._encryption_unsent:
            report.encryption.CopyFrom(self._encryption or EncryptionReport())
        if self._description_unsent:
            self._describe(report)
        self._sent()
        return report

    def _describe(self, report: HostReport) -> None:
        if self._description is not None:
            report.description.CopyFrom(self._description)
            report.description.devices.extend(self._devices)
            if self._lacking:
                report.description.missing_features.append(self._lacking)

    def _all_conditions(self) -> list[objects.NodeCondition]:
        return [each for source in sorted(self._conditions) for each in self._conditions[source]]

    def _sent(self) -> None:
        self._unsent.clear()
        self._images_unsent = self._description_unsent = self._encryption_unsent = self._conditions_unsent = False
        self._volumes_unsent = False
        self._news = trio.Event()
