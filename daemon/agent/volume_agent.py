"""Deletes the data of volumes that somebody asked to be removed, and of no others.

A volume's data goes only when the cluster says that no task has it any more (`discard`), and the cluster forgets the
volume only when its host has said that the data is gone. Whatever else makes a volume disappear from the state (a
restored backup, a forced removal of this host) leaves its folder where it is.
"""

from __future__ import annotations

import logging

import trio

from daemon.agent.host_view import HostView
from daemon.agent.reports import Reports
from storage.errors import StorageFailure
from storage.volumes import LocalVolumes

logger = logging.getLogger(__name__)

RETRY_S = 5.0


class VolumeAgent:
    """Follows the view; one deletion at a time, tried again until it has worked."""

    def __init__(self, volumes: LocalVolumes, view: HostView, reports: Reports) -> None:
        self._volumes = volumes
        self._view = view
        self._reports = reports
        self._discarded: set[str] = set()  # ids; the cluster has not forgotten them yet
        self._wake = trio.Event()

    def changed(self) -> None:
        """The view has changed in a way that concerns volumes."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            due = {volume.meta.id: volume for volume in self._view.volumes if volume.discard}
            self._discarded &= due.keys()
            for volume_id in sorted(due.keys() - self._discarded):
                name = f"{due[volume_id].app}/{due[volume_id].meta.name}"
                try:
                    await self._volumes.remove(volume_id)
                    logger.info("removed volume %s with its data", name)
                    self._discarded.add(volume_id)
                except (StorageFailure, OSError) as error:
                    logger.warning("volume %s cannot be removed: %s", name, error)
                    await trio.sleep(RETRY_S)
                    self._wake.set()
            self._reports.volumes_discarded(sorted(self._discarded))
