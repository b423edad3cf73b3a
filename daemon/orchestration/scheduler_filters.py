"""Why hosts do not take a task: one filter for each reason, which knows all hosts that it refuses and says so in words.

A filter is a column of flags; all that apply to a task are asked in order, and the first that refuses a host
explains. Those that depend only on hosts and the service (`fixed_filters`) are made once for a service and plan; those
on what is taken meanwhile for each task (`room_filters`; those on where other tasks are: scheduler_affinity.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from daemon.host_conditions import BARRING, barring
from daemon.orchestration import constraints
from daemon.orchestration.host_ports import HostPort, port_text
from daemon.orchestration.quantities import bytes_text, cpu_text, names_text
from daemon.orchestration.scheduler_hosts import Flags, Hosts, Numbers
from daemon.orchestration.scheduler_words import PORT_TAKEN, Refusal, is_words
from net.features import HOST_NETWORK, SCTP
from proto import objects_pb2 as objects
from runtime.features import APPARMOR, USER_NAMESPACES

NAMES_SHOWN_MAX = 3
# What is said first; else what it lacks.
AVAILABILITY_ORDER = {"down": 0, "unheard": 1, "silent": 2, "cordoned": 3, "draining": 4}


@dataclass(frozen=True)
class Filter:
    """`free`: by host, what it could offer, where more would help. `room`: the end of tasks there removes it."""

    refusal: Refusal
    refuses: Flags
    free: Numbers | None = None
    room: bool = False
    told: Callable[[int], Refusal] | None = None  # where there is more to say of one host

    def of(self, host: int) -> Refusal:
        """About one host."""
        if self.told is not None:
            return self.told(host)
        if self.free is None:
            return self.refusal
        return self.refusal.with_amount(max(int(self.free[host]), 0))


def availability_refusals(node: objects.Node) -> tuple[Refusal, ...]:
    """What is against the node itself: its state, its availability, what it lacks."""
    found = []
    if node.state == objects.NODE_STATE_DOWN:
        found.append(is_words("down", "bring {host} back, or remove it with `fairway node rm {host}`"))
    elif node.state == objects.NODE_STATE_SILENT:
        verbs = ("answers, but not its fairwayd", "answer, but not their fairwayd")
        found.append(Refusal("silent", *verbs, "wait for fairwayd on {host}, or start it"))
    elif node.state != objects.NODE_STATE_READY:
        verbs = ("has not been heard of yet", "have not been heard of yet")
        found.append(Refusal("unheard", *verbs, "start fairwayd on {host}"))
    if node.availability == objects.AVAILABILITY_CORDONED:
        found.append(is_words("cordoned", "`fairway node activate {host}`"))
    elif node.availability == objects.AVAILABILITY_DRAINING:
        found.append(is_words("draining", "`fairway node activate {host}`"))
    for kind in barring(node):
        words, remedy = BARRING[kind]
        found.append(Refusal(kind, *_has(words), remedy))
    missing = node.description.missing_features
    if missing:
        words = ", ".join(missing)
        found.append(Refusal(f"lacks {words}", f"lacks {words}", f"lack {words}", f"give {{host}} {words}"))
    return tuple(found)


def fixed_filters(
    hosts: Hosts, wanted: Iterable[constraints.Constraint], image: objects.Image, needs: Iterable[str] = ()
) -> list[Filter]:
    """What does not change while a plan is made, besides volumes. Constraints come first: a host that they
    leave out is of no interest, whatever its state. `needs`: of what a host may lack (`needs_of`)."""
    filters = [_constraint_filter(hosts, constraint) for constraint in wanted]
    column, values = hosts.column("availability", availability_refusals)
    occurring = {refusal for refusals in values for refusal in refusals}
    for refusal in sorted(occurring, key=lambda one: (AVAILABILITY_ORDER.get(one.kind, 9), one.kind)):
        has = np.array([refusal in refusals for refusals in values], dtype=np.bool_)
        filters.append(Filter(refusal, has[column]))
    for need in needs:
        column, lacking = hosts.column(f"lacks {need}", partial(_lacks, need))
        if True in lacking:
            filters.append(Filter(LACKING[need], column == lacking.index(True)))
    if image.architecture:
        filters += _architecture_filters(hosts, image.architecture)
    return [one for one in filters if one.refuses.any()]


def needs_of(spec: objects.ServiceSpec) -> Iterator[str]:
    """What of `NodeDescription.lacks` a host of the task must have."""
    if any(port.protocol == "sctp" for port in spec.ports):
        yield SCTP
    if spec.container.host_network:
        yield HOST_NETWORK
    if spec.container.isolation.user_namespace:
        yield USER_NAMESPACES
    if spec.container.apparmor_profile:
        yield APPARMOR


def room_filters(hosts: Hosts, cpu_millis: int, memory_bytes: int, ports: Sequence[HostPort] = ()) -> Iterator[Filter]:
    """What is left on hosts now for a task that reserves so much and publishes `ports` on its host."""
    for port in ports:
        taken = np.zeros(hosts.count, dtype=np.bool_)
        taken[hosts.hosts_with(port)] = True
        words = f"port {port_text(port)} {PORT_TAKEN}"
        remedy = f"stop the task on {{host}} that publishes {port_text(port)}, or publish another port"
        yield Filter(Refusal(words, *_has(words), remedy), taken, room=True)
    if memory_bytes:
        free = hosts.memory_free_bytes
        words = f"less than {bytes_text(memory_bytes)} of memory left to reserve"
        remedy = f"have {bytes_text(memory_bytes)} of memory free on {{host}}, or reserve less"
        yield Filter(Refusal("memory", *_has(words), remedy), free < memory_bytes, free, room=True)
    if cpu_millis:
        free = hosts.cpu_free_millis
        words = f"less than {cpu_text(cpu_millis)} left to reserve"
        remedy = f"have {cpu_text(cpu_millis)} free on {{host}}, or reserve less"
        yield Filter(Refusal("cpu", *_has(words), remedy), free < cpu_millis, free, room=True)
    remedy = "have tasks on {host} end, or add a host"
    full = hosts.addresses_free <= 0
    yield Filter(Refusal("address", *_has("no address left for another task"), remedy), full, room=True)


def explain(hosts: Hosts, filters: Iterable[Filter]) -> str:
    """One sentence for all hosts, each by the first filter that refuses it: "no host fits: host-1 is cordoned; 7 hosts
    have less than ..."."""
    if not hosts.count:
        return "no host fits: the cluster has none"
    left = np.ones(hosts.count, dtype=np.bool_)
    groups: dict[str, tuple[Refusal, Flags, int | None]] = {}
    for one in filters:
        here = one.refuses & left
        if not here.any():
            continue
        left &= ~here
        best = None if one.free is None else max(int(one.free[here].max()), 0)
        _, before, _ = groups.get(one.refusal.kind, (one.refusal, here, None))
        groups[one.refusal.kind] = (one.refusal, here | before, best)
    parts = []
    for kind, (refusal, here, best) in groups.items():
        count = int(here.sum())
        names = hosts.names(here, NAMES_SHOWN_MAX) if count <= NAMES_SHOWN_MAX else [""] * count
        verb = refusal.verb_one if count == 1 else refusal.verb_many
        rest = "" if best is None else f" ({'it has' if count == 1 else 'the most is'} {amount_text(kind, best)})"
        parts.append((-count, kind, f"{names_text(names, 'hosts', NAMES_SHOWN_MAX)} {verb}{rest}"))
    return f"no host fits: {'; '.join(text for _, _, text in sorted(parts))}"


def amount_text(kind: str, amount: int) -> str:
    """Of a refusal's kind that has amounts."""
    return bytes_text(amount) if kind == "memory" else cpu_text(amount)


def _constraint_filter(hosts: Hosts, constraint: constraints.Constraint) -> Filter:
    why = constraint.refusal()
    remedy = "choose other hosts in deploy.placement.constraints"
    if constraint.key.startswith(constraints.LABEL_PREFIX):
        label = constraint.key.removeprefix(constraints.LABEL_PREFIX)
        change = f"{label}={constraint.value}" if constraint.equal else f"{label}-"
        remedy = f"`fairway node label {{host}} {change}`"
    return Filter(Refusal(why, why, why.replace("does not", "do not", 1), remedy), ~hosts.accepting(constraint))


def _architecture_filters(hosts: Hosts, needs: str) -> Iterator[Filter]:
    column, values = hosts.column("architecture", lambda node: node.description.architecture)
    for number, has in enumerate(values):
        if has and has != needs:
            words = f"the architecture {has} (the image is for {needs})"
            refusal = Refusal(f"architecture {has}", *_has(words), f"load an image for {has}")
            yield Filter(refusal, column == number)


def _has(words: str) -> tuple[str, str]:
    return f"has {words}", f"have {words}"


def _lacks(need: str, node: objects.Node) -> bool:
    return need in node.description.lacks


LACKING = {
    SCTP: Refusal("sctp", *_has("a kernel without SCTP"), "load the kernel module sctp on {host}"),
    HOST_NETWORK: Refusal(
        "host network",
        "does not let tasks share its network",
        "do not let tasks share their network",
        "set network.host_network_allowed = true in {host}'s fairwayd.toml",
    ),
    USER_NAMESPACES: Refusal(
        USER_NAMESPACES,
        *_has("no user namespaces for tasks"),
        "give {host} Linux 5.19 or newer and containerd.user_ids_first in its fairwayd.toml; its log says more",
    ),
    APPARMOR: Refusal(APPARMOR, *_has("a kernel without AppArmor"), "turn AppArmor on in the kernel of {host}"),
}
