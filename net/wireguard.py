"""The WireGuard devices of one host: made, told their peers, compared, mended, taken away.

The kernel's WireGuard where it has one, else `wireguard-go`. Where neither works `problem` says why, and nothing is
sent to other hosts: never in the clear.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from net import address_messages as addresses
from net import ipv6_support
from net import link_messages as links
from net import tunnel_messages as tunnels
from net.address_messages import SCOPE_GLOBAL, Address
from net.addresses import wireguard_interfaces
from net.differences import DEVICE, Difference
from net.errors import KernelRefused, NetworkError
from net.model import DesiredNetwork
from net.netlink import PROTOCOL_ROUTE, Netlink
from net.tunnel_messages import Link
from net.wireguard_keys import WireGuardKeys
from net.wireguard_netlink import InKernel
from net.wireguard_plan import (
    Device,
    Observed,
    Peer,
    device_name,
    devices_of,
    overhead_bytes,
    peer_change,
)
from net.wireguard_user import UserSpace

log = logging.getLogger(__name__)

GREET_KEEPALIVE_SECONDS = 25


class Implementation(Protocol):
    """The kernel's WireGuard or wireguard-go. Every method but `observe` raises NetworkError."""

    kind: str  # of the link

    def make(self, name: str) -> None: ...
    def observe(self, name: str) -> Observed | None: ...
    def set_identity(self, name: str, private_key: bytes, port: int) -> None: ...
    def set_peers(
        self, name: str, put: Iterable[Peer], removed: Iterable[bytes], keepalive_seconds: int = 0
    ) -> None: ...
    def came_up(self, name: str, port: int) -> None: ...
    def remove(self, name: str) -> None: ...


@dataclass
class _Known:
    """A device as it was left."""

    epoch: int
    number: int
    implementation: Implementation
    told: dict[bytes, Peer] = field(default_factory=dict)
    greeted: list[Peer] = field(default_factory=list)  # whose keepalives are still to be turned off


class WireGuard:
    """Blocking; not safe for several threads at once, and in the network namespace of the thread that makes it."""

    def __init__(self, prefix: str, keys: WireGuardKeys, run_folder: Path) -> None:
        self.problem = ""
        self._prefix = prefix
        self._keys = keys
        self._netlink = Netlink(PROTOCOL_ROUTE)
        self._in_kernel = InKernel()
        self._user_space = UserSpace(run_folder)
        self._known: dict[str, _Known] = {}
        self._looked_for_left = False

    def close(self) -> None:
        self._netlink.close()
        self._in_kernel.close()

    def public_keys(self) -> dict[int, bytes]:
        """By epoch, of the devices that are ready to receive."""
        return {known.epoch: self._keys.public(known.epoch) for known in self._known.values()}

    def number(self, epoch: int) -> int:
        """Of the device of an epoch; 0 where it is not ready."""
        known = self._known.get(device_name(self._prefix, epoch)) if epoch else None
        return known.number if known is not None and known.epoch == epoch else 0

    def prepare(
        self, desired: DesiredNetwork, underlay_mtu_bytes: Callable[[], int], *, compare: bool
    ) -> list[Difference]:
        """Makes what is wanted ready; with `compare` by what is there, else by what was left before.

        Returns the differences that were mended. What cannot be mended is in `problem`.
        """
        found: list[Difference] = []
        problems = []
        for device in devices_of(desired, self._prefix):
            known = self._known.get(device.name)
            try:
                if compare or known is None or known.epoch != device.epoch:
                    mtu_bytes = underlay_mtu_bytes() - overhead_bytes(desired)
                    known, words = self._mend(device, mtu_bytes)
                    found += [Difference(DEVICE, f"device {device.name}: {each}") for each in words]
                self._tell(device, known)
            except (NetworkError, OSError) as error:
                self._known.pop(device.name, None)
                problems.append(str(error))
        problem = "; ".join(problems)
        if problem and problem != self.problem:
            log.error("WireGuard, without which this host sends nothing to others: %s", problem)
        self.problem = problem
        return found

    def retire(self, desired: DesiredNetwork) -> None:
        """Takes away what is not wanted any more, keys included; after nothing is sent by it."""
        epochs = desired.config.encryption.epochs
        wanted = {device_name(self._prefix, epoch) for epoch in epochs}
        for name in set(wireguard_interfaces(self._prefix)) - wanted:
            if name in self._known or not self._looked_for_left:
                self._remove(name)
        self._looked_for_left = True
        self._keys.keep_only(epochs)

    def remove(self) -> None:
        """All devices and keys: this host leaves its cluster."""
        for name in wireguard_interfaces(self._prefix):
            self._remove(name)
        self._keys.keep_only(())
        self.problem = ""

    def _mend(self, device: Device, mtu_bytes: int) -> tuple[_Known, list[str]]:
        words = []
        link, observed, implementation = self._observe(device.name)
        if link is None or observed is None or implementation is None:
            self._known.pop(device.name, None)
            implementation = self._make(device.name)
            link, observed, _ = self._observe(device.name)
            if link is None or observed is None:
                raise NetworkError(f"WireGuard device {device.name} vanished while it was made")
            words.append("it was missing")
        private_key = self._keys.private(device.epoch)
        if (observed.private_key, observed.port) != (private_key, device.port):
            implementation.set_identity(device.name, private_key, device.port)
            observed = observed._replace(peers={} if observed.private_key != private_key else observed.peers)
            self._known.pop(device.name, None)
            words.append(f"it did not have the key of epoch {device.epoch} and port {device.port}")
        words += self._mend_link(link, device.inner, mtu_bytes)
        known = self._known.get(device.name)
        if known is None or known.number != link.number:
            implementation.came_up(device.name, device.port)
            known = _Known(device.epoch, link.number, implementation)
        elif observed.peers.keys() != known.told.keys():
            words.append("its peers were changed")
        known.told = {key: peer for key, peer in known.told.items() if key in observed.peers}
        self._calm(device.name, known)
        self._drop(device, known, observed)
        return known, words

    def _mend_link(self, link: Link, inner: str, mtu_bytes: int) -> list[str]:
        words = []
        present = {
            address
            for answer in self._netlink.dump(addresses.list_addresses(link.number))
            if (address := addresses.read_address(answer)) is not None and address.device == link.number
        }
        settings = {links.CONF_REVERSE_PATH_FILTER: _reverse_path_filter()}
        if not link.up or link.mtu_bytes != mtu_bytes or any(link.settings.get(k) != v for k, v in settings.items()):
            if ipv6_support.is_there():
                self._netlink.ask(links.without_ipv6_address(link.number, link.name))
            self._netlink.ask(links.set_link(link.number, link.name, mtu_bytes=mtu_bytes, settings=settings))
            words.append(f"it was not up with an MTU of {mtu_bytes} bytes")
        if ":" in inner:
            ipv6_support.turn_on(link.name)
        wanted = Address(inner, SCOPE_GLOBAL, link.number)
        if wanted not in present:
            self._netlink.ask(addresses.new_address(wanted))
            words.append(f"it did not have the address {inner}")
        return words

    def _tell(self, device: Device, known: _Known) -> None:
        """One message to the device where a host came or went."""
        change = peer_change(device.peers, known.told, known.told)
        if change.put or change.removed:
            # Without the keepalive, which shakes hands, the first packets of each pair would wait for that.
            known.implementation.set_peers(device.name, change.put, change.removed, GREET_KEEPALIVE_SECONDS)
            known.greeted += change.put
            known.told = dict(device.peers)
        self._known[device.name] = known

    @staticmethod
    def _drop(device: Device, known: _Known, observed: Observed) -> None:
        """Peers that nobody knows of: of an epoch before, or of another's hand."""
        strangers = [key for key in observed.peers if key not in device.peers]
        if strangers:
            known.implementation.set_peers(device.name, (), strangers)
            known.told = {key: peer for key, peer in known.told.items() if key in device.peers}

    @staticmethod
    def _calm(name: str, known: _Known) -> None:
        """Keepalives are only for the handshake at the start: a thousand idle hosts stay quiet."""
        still = [peer for peer in known.greeted if peer.public_key in known.told]
        if still:
            known.implementation.set_peers(name, still, ())
        known.greeted = []

    def _observe(self, name: str) -> tuple[Link | None, Observed | None, Implementation | None]:
        answer = self._netlink.get(links.get_link(name))
        if answer is None:
            return None, None, None
        link = tunnels.read_link(answer)
        by_kind: dict[str, Implementation] = {each.kind: each for each in (self._in_kernel, self._user_space)}
        implementation = by_kind.get(link.kind)
        if implementation is None:
            raise NetworkError(f"make WireGuard device {name}: there is a device {name} of kind {link.kind}; remove it")
        return link, implementation.observe(name), implementation

    def _make(self, name: str) -> Implementation:
        self._remove(name)
        try:
            self._in_kernel.make(name)
        except KernelRefused as error:
            if error.code not in (errno.EOPNOTSUPP, errno.ENOTSUP):
                raise
        else:
            return self._in_kernel
        lacking = self._user_space.lacking()
        if lacking:
            raise NetworkError(f"this kernel has no WireGuard, and {lacking}")
        self._user_space.make(name)
        return self._user_space

    def _remove(self, name: str) -> None:
        self._known.pop(name, None)
        self._user_space.remove(name)
        answer = self._netlink.get(links.get_link(name))
        if answer is not None and tunnels.read_link(answer).kind in (self._in_kernel.kind, self._user_space.kind):
            for _, error in self._netlink.ask_all([links.delete_link(tunnels.read_link(answer).number, name)]):
                if error.code != errno.ENODEV:
                    raise error


def _reverse_path_filter() -> int:
    """While keys change, packets come in by one device and leave by the other (see net/overlay.py)."""
    everyone = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip()
    return 0 if everyone == "0" else 2
