"""Everything of one host's network that lives in the kernel, behind one lock-free, blocking interface.

`Network` calls it from worker threads, one call at a time.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from net.addresses import ipv6_of, tunnel_interface
from net.connections import Connections
from net.desired_changes import Change, DesiredIndex
from net.differences import FORWARDING, NFTABLES, of_kind
from net.errors import KernelRefused
from net.forwarding import Forwarding
from net.model import DesiredNetwork
from net.nftables import Nftables, table_name
from net.overlay import OverlayDevice
from net.policy_chains import policy_of_counter
from net.policy_connections import cut_forbidden
from net.ruleset import RulesetChange, repair
from net.ruleset_plan import RulesetPlan
from net.untranslated import forget_untranslated, publishes_datagrams
from net.wireguard import WireGuard
from net.wireguard_keys import WireGuardKeys

log = logging.getLogger(__name__)


class Kernel:
    """Overlay, ruleset and connections; the interfaces of tasks are apart (`net/task_interfaces.py`)."""

    def __init__(self, prefix: str, state_file: Path, run_folder: Path = Path("/run/fairway")) -> None:
        self._forwarding = Forwarding(state_file)
        tunnel = tunnel_interface(prefix)
        self.overlay = OverlayDevice(tunnel)
        self.wireguard = WireGuard(prefix, WireGuardKeys(state_file.parent / "identity/wireguard"), run_folder)
        self._nftables = Nftables(table_name(prefix))
        self._connections = Connections()
        self._plan = RulesetPlan(tunnel, f"{prefix}t*", f"{prefix}w*")
        self._generation = -1  # of nftables after our last transaction; -1: compare with the kernel first
        self._overlay_known = False

    def close(self) -> None:
        self.overlay.close()
        self.wireguard.close()
        self._nftables.close()
        self._connections.close()

    def apply(self, desired: DesiredNetwork, index: DesiredIndex, change: Change) -> list[str]:
        """Brings the kernel to `desired`, at which `index` is already; raises NetworkError.

        After an error the next call, or `check`, compares with the kernel instead of what was applied.
        Returns what could not be done but does not matter to others, in words.
        """
        # Until everything is done, what the kernel's ruleset is counts as unknown.
        generation, self._generation = self._generation, -1
        steps = self._plan.advance(desired, index, change)
        if change.hosts or change.settings or not self._overlay_known:
            self._overlay_known = False
            self._forwarding.turn_on(ipv6=bool(desired.config.ipv6_prefix))
            self._apply_overlay(desired, compare=change.settings)
            self._overlay_known = True
        # What another task has by now is forgotten before anybody is sent there: its connections are not the old one's.
        reused = index.reused(change.gone, change)
        words = self._forget([], [each for each in change.gone if each in reused])
        if self._apply_ruleset(steps, generation) or publishes_datagrams(steps):
            words += forget_untranslated(desired)
        words += self._forget(change.withdrawn + change.vanished, [each for each in change.gone if each not in reused])
        if self._plan.policies.changed:
            self._plan.policies.changed = False
            words += cut_forbidden(desired, index, self._plan.policies)
        return words

    def _forget(self, withdrawn: list[str], gone: list[str]) -> list[str]:
        if not withdrawn and not gone:
            return []
        prefix = self.overlay.ipv6_prefix
        return self._connections.forget(_of_both(prefix, withdrawn), _of_both(prefix, gone))

    def policy_counts(self) -> dict[str, tuple[int, int]]:
        """Policy id -> (packets, bytes) that it denied here, or would have."""
        return {policy_of_counter(name): found for name, found in self._nftables.counts().items()}

    def check(self, desired: DesiredNetwork) -> list[str]:
        """Compares the kernel with the desired state and repairs it; returns the differences, in words."""
        found: list[str] = []
        off = self._forwarding.turn_on(ipv6=bool(desired.config.ipv6_prefix))
        found += of_kind(FORWARDING, (f"{family} forwarding was off" for family in off))
        found += self._apply_overlay(desired, compare=True)
        self._overlay_known = True
        if self._nftables.generation() != self._generation:
            repaired = self._repair_ruleset()
            found += of_kind(NFTABLES, repaired.describe())
            for words in forget_untranslated(desired) if repaired else ():
                log.warning("after the ruleset was repaired: %s", words)
        return found

    def differences(self, desired: DesiredNetwork) -> tuple[list[str], RulesetChange]:
        """What `check` would repair now, without repairing it: (the overlay's, in words, and the ruleset's)."""
        ruleset = repair(self._nftables.observe(), self._plan.ruleset)
        return self.overlay.differences(desired), ruleset

    def remove(self) -> None:
        """Takes overlay and ruleset away."""
        self._generation = -1
        self._overlay_known = False
        self._nftables.remove()
        self.overlay.remove()
        self.wireguard.remove()
        self._forwarding.restore()

    def _apply_overlay(self, desired: DesiredNetwork, *, compare: bool) -> list[str]:
        """What is sent by is there before the overlay uses it, and what it used goes after that."""
        mtu_bytes = partial(self.overlay.underlay_mtu_bytes, desired.local.address)
        found: list[str] = [*self.wireguard.prepare(desired, mtu_bytes, compare=compare)]
        self.overlay.wireguard = self.wireguard.number(desired.config.encryption.sending)
        found += self.overlay.apply(desired, compare=compare)
        self.wireguard.retire(desired)
        return found

    def _apply_ruleset(self, steps: RulesetChange, before: int) -> bool:
        """Whether the kernel's was another one than we knew."""
        if before < 0:
            return bool(self._repair_ruleset())
        if not steps:
            self._generation = before
            return False
        try:
            self._nftables.apply(steps)
        except KernelRefused as error:
            log.warning("%s; comparing the whole ruleset with the kernel's", error)
            return bool(self._repair_ruleset())
        after = self._nftables.generation()
        # Someone else's transaction in between may have changed ours: the next check looks.
        self._generation = after if after == _next_generation(before) else 0
        return False

    def _repair_ruleset(self) -> RulesetChange:
        self._generation = -1
        before = self._nftables.generation()
        change = repair(self._nftables.observe(), self._plan.ruleset)
        self._nftables.apply(change)
        after = self._nftables.generation()
        expected = _next_generation(before) if change else before
        self._generation = after if after == expected else 0
        return change


def _of_both(ipv6_prefix: str, addresses: list[str]) -> list[str]:
    """Addresses of tasks, and their IPv6 ones."""
    return addresses + [ipv6_of(ipv6_prefix, each) for each in addresses] if ipv6_prefix else addresses


def _next_generation(number: int) -> int:
    """The kernel skips 0, which therefore never equals a real generation."""
    return (number + 1) & 0xFFFFFFFF or 1
