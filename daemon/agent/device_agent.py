"""Tells the cluster which CDI devices this host has, and what is wrong with the specifications of others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from daemon.agent.reports import Reports
from proto import objects_pb2 as objects
from runtime.cdi_devices import host_devices
from runtime.cdi_folders import CdiFolders, missing_node

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0  # a few stat(2) calls; devices come and go with their drivers and plugs
CONDITION = "device specification"
PROBLEM_CHARACTERS_MAX = 240


class DeviceAgent:
    """`shared`: kinds and names of devices that this host's configuration lets tasks share."""

    def __init__(self, folders: CdiFolders, shared: Sequence[str], reports: Reports) -> None:
        self._folders = folders
        self._shared = frozenset(shared)
        self._reports = reports
        self._said: list[str] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Once; devices whose files the host does not have are left out. Where it fails, what was told stays."""
        try:
            devices, problems = await trio.to_thread.run_sync(self._look)
        except Exception:  # whatever is in a file must not end the daemon
            logger.exception("the host's devices cannot be looked at")
            return
        if problems != self._said:
            self._said = problems
            for problem in problems:
                logger.warning("devices: %s", problem)
        self._reports.devices(devices)
        self._reports.conditions(CONDITION, conditions(problems))

    def _look(self) -> tuple[list[objects.HostDevice], list[str]]:
        registry = self._folders.look()
        problems, there = list(registry.problems), []
        for device in registry.devices.values():
            missing = missing_node(device)
            if missing is None:
                there.append(device)
            else:
                problems.append(f"{device.full_name} is not there: the host has no device file {missing.host_path}")
        devices, misread = host_devices(there, self._shared)
        return devices, problems + misread


def conditions(problems: Sequence[str]) -> list[objects.NodeCondition]:
    """One at most, as a host has one of each kind: the first problem, and how many there are beside it."""
    if not problems:
        return []
    more = f" (and {len(problems) - 1} more: see the log of fairwayd)" if len(problems) > 1 else ""
    return [objects.NodeCondition(kind=CONDITION, message=problems[0][:PROBLEM_CHARACTERS_MAX] + more)]
