"""Which hosts may take a task, and in words why the others may not.

Filters are asked in order; the first that refuses a host explains. The cheap ones that depend only on the
node and the service are asked once per service and plan (`fixed_refusal`), those on what is reserved for
each task (`Room.refusal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.orchestration import constraints
from daemon.orchestration.host_ports import HostPort, clash, port_text
from daemon.orchestration.leases import task_addresses
from daemon.orchestration.quantities import bytes_text, cpu_text, names_text
from net.features import SCTP
from proto import objects_pb2 as objects

ZONE_LABEL = "zone"
PORT_TAKEN = "taken by another task"


@dataclass(frozen=True)
class Refusal:
    """`kind` groups hosts that are refused for the same reason; `verb_one` and `verb_many` continue "host-1" and
    "7 hosts"; `amount` is what a host could offer, where more would help."""

    kind: str
    verb_one: str
    verb_many: str
    amount: int | None = None


def _is(words: str) -> Refusal:
    return Refusal(words, f"is {words}", f"are {words}")


@dataclass
class Room:
    """What is taken on one node. Counts every task that has not ended, reservations exactly."""

    node: objects.Node
    cpu_reserved_millis: int = 0
    memory_reserved_bytes: int = 0
    task_count: int = 0
    addresses_taken: int = 0  # of tasks that are not gone yet, ended ones too
    by_service: dict[str, int] = field(default_factory=dict)  # wanted tasks only: what spreading looks at
    failures: dict[str, int] = field(default_factory=dict)  # by service: its tasks that failed here lately
    ports_taken: list[HostPort] = field(default_factory=list)  # of host mode, by tasks that have not ended

    def __post_init__(self) -> None:
        # Read once: a field of a message costs far more than an attribute, and every task asks every host.
        self.name = self.node.meta.name
        self.cpu_millis = self.node.description.cpu_millis
        self.memory_bytes = self.node.description.memory_bytes
        self.zone = self.node.meta.labels.get(ZONE_LABEL, "")
        self.addresses = task_addresses(self.node)

    def add(self, resources: objects.Resources) -> None:
        self.cpu_reserved_millis += resources.cpu_reserved_millis
        self.memory_reserved_bytes += resources.memory_reserved_bytes
        self.task_count += 1

    def refusal(self, resources: objects.Resources, ports: Sequence[HostPort] = ()) -> Refusal | None:
        """Why a task that reserves `resources` and publishes `ports` on its host does not fit now; None: it does."""
        for port in ports:
            if any(clash(port, taken) for taken in self.ports_taken):
                words = f"port {port_text(port)} {PORT_TAKEN}"
                return Refusal(words, f"has {words}", f"have {words}")
        asked = resources.memory_reserved_bytes
        free = self.memory_bytes - self.memory_reserved_bytes
        if asked and asked > free:
            words = f"less than {bytes_text(asked)} of memory left to reserve"
            return Refusal("memory", f"has {words}", f"have {words}", max(free, 0))
        asked = resources.cpu_reserved_millis
        free = self.cpu_millis - self.cpu_reserved_millis
        if asked and asked > free:
            words = f"less than {cpu_text(asked)} left to reserve"
            return Refusal("cpu", f"has {words}", f"have {words}", max(free, 0))
        if self.addresses_taken >= self.addresses:
            words = "no address left for another task"
            return Refusal("address", f"has {words}", f"have {words}")
        return None

    def load(self) -> float:
        """Reserved part of the scarcer of CPU and memory, 0 to 1."""
        return max(
            self.cpu_reserved_millis / max(self.cpu_millis, 1),
            self.memory_reserved_bytes / max(self.memory_bytes, 1),
        )


def availability_refusal(node: objects.Node) -> Refusal | None:
    """State and availability of the node itself."""
    if node.state == objects.NODE_STATE_DOWN:
        return _is("down")
    if node.state != objects.NODE_STATE_READY:
        return Refusal("unheard", "has not been heard of yet", "have not been heard of yet")
    if node.availability == objects.AVAILABILITY_CORDONED:
        return _is("cordoned")
    if node.availability == objects.AVAILABILITY_DRAINING:
        return _is("draining")
    missing = node.description.missing_features
    if missing:
        words = ", ".join(missing)
        return Refusal(f"lacks {words}", f"lacks {words}", f"lack {words}")
    return None


def fixed_refusal(
    node: objects.Node, wanted: Sequence[constraints.Constraint], image: objects.Image, needs_sctp: bool = False
) -> Refusal | None:
    """What does not change while a plan is made, besides volumes. Constraints come first: a host that they
    leave out is of no interest, whatever its state."""
    why = constraints.first_refusal(wanted, node)
    if why is not None:
        return Refusal(why, why, why.replace("does not", "do not", 1))
    refusal = availability_refusal(node)
    if refusal is not None:
        return refusal
    if needs_sctp and SCTP in node.description.lacks:
        return Refusal("sctp", "has a kernel without SCTP", "have a kernel without SCTP")
    has, needs = node.description.architecture, image.architecture
    if needs and has and needs != has:
        return Refusal(
            f"architecture {has}",
            f"has the architecture {has} (the image is for {needs})",
            f"have the architecture {has} (the image is for {needs})",
        )
    return None


def explain(refusals: Sequence[tuple[objects.Node, Refusal]]) -> str:
    """One sentence for all hosts: "no host fits: host-1 is cordoned; 7 hosts have less than ..."."""
    if not refusals:
        return "no host fits: the cluster has none"
    groups: dict[str, list[tuple[objects.Node, Refusal]]] = {}
    for node, refusal in refusals:
        groups.setdefault(refusal.kind, []).append((node, refusal))
    parts = []
    for kind, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        names = sorted(node.meta.name for node, _ in group)
        verb = group[0][1].verb_one if len(names) == 1 else group[0][1].verb_many
        best = max((refusal.amount for _, refusal in group if refusal.amount is not None), default=None)
        rest = ""
        if best is not None:
            amount = bytes_text(best) if kind == "memory" else cpu_text(best)
            rest = f" ({'it has' if len(names) == 1 else 'the most is'} {amount})"
        parts.append(f"{names_text(names, 'hosts')} {verb}{rest}")
    return f"no host fits: {'; '.join(parts)}"
