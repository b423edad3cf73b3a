"""Keeps this host's kernel and DNS as the cluster's state says, and reports at which revision they stand."""

from __future__ import annotations

import logging

import trio

from daemon.agent.encryption import EncryptionAgent
from daemon.agent.host_view import HostView
from daemon.agent.network_view import NetworkView
from daemon.agent.reports import Reports
from net.network import Network
from proto import objects_pb2 as objects

logger = logging.getLogger(__name__)

INTERVAL_S_MIN = 0.02  # changes that come closer together share a pass
BACK_OFF_S_MIN = 0.2
BACK_OFF_S_MAX = 5.0
LEADER_WAIT_S_MAX = 5.0
CONDITION = "network"


class NetworkAgent:
    """Applies the newest desired network, one pass at a time."""

    def __init__(self, network: Network, node_id: str, view: HostView, reports: Reports) -> None:
        self.error = ""
        self._network = network
        self._view = view
        self._reports = reports
        self._desired = NetworkView(node_id)
        self._encryption = EncryptionAgent(network, reports)
        self._wake = trio.Event()

    def changed(self) -> None:
        """The view has changed in a way that concerns the network."""
        self._wake.set()

    async def run(self) -> None:
        """Applies until cancelled; a kernel that refuses is asked again, and reported."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._encryption.run)
            await self._keep_applied()

    async def _keep_applied(self) -> None:
        await self._wait_for_leader()
        back_off_s = BACK_OFF_S_MIN
        while True:
            self._wake = trio.Event()
            try:
                await self._apply()
                back_off_s = BACK_OFF_S_MIN
                self.error = ""
            except Exception as error:
                self.error = str(error)
                logger.error("the network is not as it should be: %s", error)
                with trio.move_on_after(back_off_s):
                    await self._wake.wait()
                back_off_s = min(2 * back_off_s, BACK_OFF_S_MAX)
                continue
            await trio.sleep(INTERVAL_S_MIN)
            await self._wake.wait()

    async def _wait_for_leader(self) -> None:
        """After a restart the kernel is newer than what was saved: that is put into it only without a leader."""
        with trio.move_on_after(LEADER_WAIT_S_MAX):
            while not self._view.complete:
                await self._wake.wait()
                self._wake = trio.Event()

    async def _apply(self) -> None:
        revision = self._view.revision
        desired = self._desired.desired(self._view)
        if desired is None:
            return
        await self._network.apply(desired)
        self._encryption.note(desired.config.encryption)
        self._reports.network(revision)
        lacking = [objects.NodeCondition(kind=CONDITION, message=words) for words in self._network.lacking]
        self._reports.conditions(CONDITION, lacking)
