"""Policies as values: who may reach whom. Made by the daemon, read by the planners; pure.

A service that a policy with rules for a direction selects is closed in that direction, but for what a rule of any such
policy allows, as in Kubernetes. Policies that only count (`dry_run`) close and open nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Selector:
    """Services that match all that is given; empty: any. The tenant is never empty."""

    tenant: str
    app: str = ""
    service: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in (("app", self.app), ("service", self.service)) if value]
        parts += [f"label {name}={value}" for name, value in self.labels]
        return ", ".join(parts) if parts else f"everything of tenant {self.tenant}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Services, or addresses outside of the cluster; the other is None or empty."""

    services: Selector | None = None
    cidr: str = ""
    excepted: tuple[str, ...] = ()  # CIDRs within it

    def __str__(self) -> str:
        if self.services is not None:
            return str(self.services)
        return self.cidr + (f" except {', '.join(self.excepted)}" if self.excepted else "")


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """Of a task, behind balancing; `first` 0: all of the protocol."""

    protocol: str
    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        if not self.first:
            return self.protocol
        return f"{self.protocol}/{self.first}" + (f"-{self.last}" if self.last != self.first else "")


@dataclass(frozen=True, slots=True)
class PolicyRule:
    peers: tuple[Peer, ...] = ()  # none: whoever could come, or whatever could be reached, without a policy
    ports: tuple[PolicyPort, ...] = ()  # none: all, of any protocol


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of a direction None: the policy says nothing of it; (): nothing is allowed."""

    policy_id: str
    name: str
    selects: Selector
    ingress: tuple[PolicyRule, ...] | None = None
    egress: tuple[PolicyRule, ...] | None = None
    dry_run: bool = False

    def rules(self, direction: str) -> tuple[PolicyRule, ...] | None:
        return self.ingress if direction == INGRESS else self.egress


INGRESS, EGRESS = "ingress", "egress"
