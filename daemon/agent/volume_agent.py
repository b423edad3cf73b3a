"""Deletes the data of volumes that somebody asked to be removed, and of no others.

A volume's data goes only when this host first saw the volume marked as being removed and then saw it gone from the
cluster. Whatever else makes a volume disappear from the state (a restored backup, a forced removal of this host)
leaves its folder where it is.
"""

from __future__ import annotations

import logging

import trio

from daemon.agent.host_view import HostView
from storage.errors import StorageFailure
from storage.volumes import LocalVolumes

logger = logging.getLogger(__name__)

RETRY_S = 5.0


class VolumeAgent:
    """Follows the view; one deletion at a time, tried again until it has worked."""

    def __init__(self, volumes: LocalVolumes, view: HostView) -> None:
        self._volumes = volumes
        self._view = view
        self._marked: dict[str, str] = {}  # id -> name, seen as being removed
        self._wake = trio.Event()

    def changed(self) -> None:
        """The view has changed in a way that concerns volumes."""
        present = {volume.meta.id: volume for volume in self._view.volumes}
        for volume in present.values():
            if volume.removing:
                self._marked[volume.meta.id] = f"{volume.app}/{volume.meta.name}"
            else:
                self._marked.pop(volume.meta.id, None)
        if self._marked.keys() - present.keys():
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            present = {volume.meta.id for volume in self._view.volumes}
            for volume_id in sorted(self._marked.keys() - present):
                try:
                    await self._volumes.remove(volume_id)
                    logger.info("removed volume %s with its data", self._marked[volume_id])
                    del self._marked[volume_id]
                except (StorageFailure, OSError) as error:
                    logger.warning("volume %s cannot be removed: %s", self._marked[volume_id], error)
                    await trio.sleep(RETRY_S)
                    self._wake.set()
