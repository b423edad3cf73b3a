"""Encryption of what goes between hosts: what the cluster says of it, and what this host reports."""

from __future__ import annotations

import trio

from daemon.agent.reports import Reports
from net.model import Encryption
from net.network import Network
from proto import objects_pb2 as objects
from proto.host_pb2 import EncryptionReport

LOOK_INTERVAL_S = 1.0  # devices may fail, and be mended, at any time


def encryption_of(cluster: objects.Cluster) -> Encryption:
    """Where the cluster is now, as this host has to follow it."""
    state = cluster.encryption
    return Encryption(
        sending=state.sending,
        receiving=tuple(state.receiving) or (0,),
        port=cluster.network.wireguard_port or Encryption().port,
    )


def report_of(public_keys: dict[int, bytes], problem: str) -> EncryptionReport:
    """`public_keys` by epoch, of the devices that are ready to receive."""
    keys = [objects.WireGuardKey(epoch=epoch, public_key=key) for epoch, key in sorted(public_keys.items())]
    return EncryptionReport(keys=keys, problem=problem)


class EncryptionAgent:
    """Reports this host's public keys, and what keeps it from encrypting."""

    def __init__(self, network: Network, reports: Reports) -> None:
        self._network = network
        self._reports = reports
        self._encryption: Encryption | None = None

    def note(self, encryption: Encryption) -> None:
        """After `encryption` was applied: the leader hears of the keys before it hears that the host follows."""
        self._encryption = encryption
        self._look()

    async def run(self) -> None:
        """Looks at the devices until cancelled."""
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            self._look()

    def _look(self) -> None:
        if self._encryption is None:
            return
        public_keys, problem = self._network.encryption()
        # While the cluster only gets ready, a host that cannot follow works on as before.
        lacking = f"WireGuard, by which hosts send to each other ({problem})" if problem else ""
        self._reports.encryption(report_of(public_keys, problem), lacking if self._encryption.sending else "")
