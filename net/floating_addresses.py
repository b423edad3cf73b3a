"""Floating addresses of this host in the kernel: put on an interface for a while, taken away, announced.

An address is put there with a lifetime (IFA_CACHEINFO, the kernel's `include/uapi/linux/if_addr.h`) and must be held
again before it ends, so that it goes by itself where fairwayd hangs, is killed or has lost the cluster.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Mapping

from net.address_messages import list_addresses
from net.errors import KernelRefused, NetworkError
from net.floating_plan import InterfaceAddress, announcements, device_for
from net.netlink import CREATE, PROTOCOL_ROUTE, REPLACE, Answer, Netlink, Request, attribute, attribute_map
from net.pyroute2_messages import rtnl
from net.route_messages import family_of, pack_address, unpack_address

log = logging.getLogger(__name__)

_HEADER = struct.Struct("=BBBBI")
_CACHE_INFO = struct.Struct("=IIII")  # preferred and valid seconds, and two times that the kernel fills in
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO = 1, 2, 6
_IFA_F_NODAD = 0x02


class FloatingAddresses:
    """Makes and opens nothing until it is used; not safe for several threads at once."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}  # address -> device

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    def hold(self, wanted: Mapping[str, int], underlay_address: str) -> tuple[list[str], list[str]]:
        """Keeps exactly `wanted`, each for so many seconds from now; 0: what is there keeps its time.

        Returns the addresses that are newly here, and problems in words. Blocking, some tenths of a millisecond."""
        taken: list[str] = []
        problems: list[str] = []
        if not wanted and not self._held:
            return taken, problems
        with Netlink(PROTOCOL_ROUTE) as netlink:
            present = [found for answer in netlink.dump(list_addresses()) if (found := _read(answer)) is not None]
            for address in sorted(self._held.keys() - wanted.keys()):
                self._release(netlink, address, problems)
            for address, seconds in sorted(wanted.items()):
                if not seconds:
                    continue
                others = [each for each in present if each.address != address]
                device = device_for(address, others, underlay_address)
                if device is None:
                    problems.append(f"floating address {address}: no interface of this host has {underlay_address}")
                    continue
                if self._held.get(address, device) != device:
                    self._release(netlink, address, problems)
                try:
                    netlink.ask(_new_address(address, device, seconds))
                except KernelRefused as error:
                    problems.append(str(error))
                    continue
                there = any((each.device, each.address) == (device, address) for each in present)
                if address not in self._held or not there:
                    taken.append(address)
                self._held[address] = device
        return taken, problems

    def announce(self, address: str) -> None:
        """Tells the neighbours that the address is here now; raises NetworkError."""
        device = self._held.get(address)
        if device is None:
            return
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
                link.bind((socket.if_indextoname(device), 0))
                # Not from /sys, which may be of another network namespace than this process.
                mac: bytes = link.getsockname()[4]
                for frame in announcements(address, mac):
                    link.send(frame)
        except OSError as error:
            raise NetworkError(f"announce {address} to the neighbours: {error}") from error

    def _release(self, netlink: Netlink, address: str, problems: list[str]) -> None:
        device = self._held.pop(address)
        for _, error in netlink.ask_all([_delete_address(address, device)]):
            if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):  # its time was over, or its interface is gone
                problems.append(str(error))


def _new_address(address: str, device: int, seconds: int) -> Request:
    packed = pack_address(address)
    body = _header(address, device, _IFA_F_NODAD if len(packed) == 16 else 0)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    body += attribute(_IFA_CACHEINFO, _CACHE_INFO.pack(seconds, seconds, 0, 0))
    return Request(rtnl.RTM_NEWADDR, CREATE | REPLACE, body, f"put floating address {address} on an interface")


def _delete_address(address: str, device: int) -> Request:
    body = _header(address, device, 0) + attribute(_IFA_LOCAL, pack_address(address))
    return Request(rtnl.RTM_DELADDR, 0, body, f"take floating address {address} away")


def _header(address: str, device: int, flags: int) -> bytes:
    family = family_of(address)
    return _HEADER.pack(family, 32 if family == socket.AF_INET else 128, flags, 0, device)


def _read(answer: Answer) -> InterfaceAddress | None:
    family, prefix_bits, _, _, device = _HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, _HEADER.size)
    local = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or not local:
        return None
    return InterfaceAddress(device, unpack_address(local), prefix_bits)
