"""Encryption of what goes between hosts, between the cluster's objects and this host's network. Pure."""

from __future__ import annotations

from net.model import Encryption
from proto import objects_pb2 as objects
from proto.host_pb2 import EncryptionReport


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
