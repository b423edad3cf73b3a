"""Every way to a service, as one table: which task answered, and which source address it saw.

2 services x {TCP, UDP} x {VIP, dnsrr, published, host mode} x {IPv4, IPv6} x {plain, encrypted}, asked from a task on
every host (VIP, dnsrr) and by an outside client at every host (published, host mode).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lab.layout import both_addresses
from net.addresses import ipv6_of
from tests.system.cluster import Cluster, run_in_task
from tests.system.seen_source import ASKING, PORT, Answer, Question, questions_text, replies_of, serving

SERVICES = ("red", "blue")
PROTOCOLS = ("tcp", "udp")
FAMILIES = (4, 6)
REPLICAS = 2
PUBLISHED = {"red": 8101, "blue": 8102}
HOST_MODE = {"red": 8103, "blue": 8104}
ASKED_SECONDS_MAX = 60.0
ONE_A_HOST = 8105  # two tasks with the same port of host mode are never on one host


@dataclass(frozen=True)
class Case:
    """A cell of the table: who asks what, and the answers that there have to be; none: the port is not open there."""

    words: str
    question: Question
    expected: frozenset[Answer]


@dataclass(frozen=True)
class Asker:
    """A task or the outside client. `ask` runs the program and returns what it printed."""

    ask: Callable[[str], str]
    cases: list[Case]


@pytest.fixture
def plain_again(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.fairway("net", "encryption", "set", "none", "--timeout", "60s")


def compose() -> str:
    """`red` and `blue` have a VIP and are published, `red-direct` and `blue-direct` are dnsrr and of host mode."""
    text = f"services:\n  asks:{serving('asks')}"
    text += f"    ports: [{{target: {PORT}, published: {ONE_A_HOST}, mode: host}}]\n    deploy: {{replicas: 3}}\n"
    for name in SERVICES:
        both = [f"{{target: {PORT}, published: %d, mode: %s, protocol: {protocol}}}" for protocol in PROTOCOLS]
        published = ", ".join(each % (PUBLISHED[name], "ingress") for each in both)
        host_mode = ", ".join(each % (HOST_MODE[name], "host") for each in both)
        text += f"  {name}:{serving(name)}    ports: [{published}]\n    deploy: {{replicas: {REPLICAS}}}\n"
        text += f"  {name}-direct:{serving(f'{name}-direct')}    ports: [{host_mode}]\n"
        text += f"    deploy: {{replicas: {REPLICAS}, endpoint_mode: dnsrr}}\n"
    return text


class Table:
    """The deployed app, and what has to be answered to whom."""

    def __init__(self, cluster: Cluster, app: str) -> None:
        self.cluster, self.app = cluster, app
        self.prefix = str(cluster.json("status")["cluster"]["network"]["ipv6_prefix"])
        names = cluster.node_names()
        found = {
            service: cluster.tasks(f"{app}/{service}") for name in SERVICES for service in (name, f"{name}-direct")
        }
        self.tasks = {
            service: {task["meta"]["id"][:12]: self.both(task["address"]) for task in tasks}
            for service, tasks in found.items()
        }
        self.hosts = {
            service: {names[task["node_id"]]: task["meta"]["id"][:12] for task in tasks}
            for service, tasks in found.items()
        }
        self.vips = {name: self.both(cluster.vip(f"{app}/{name}")) for name in SERVICES}
        askers = cluster.tasks(f"{app}/asks")
        assert len({task["node_id"] for task in askers}) == 3
        self.askers = [
            self.inside(task["meta"]["id"], self.both(task["address"]), names[task["node_id"]]) for task in askers
        ]
        self.askers.append(self.outside())

    def both(self, address: str) -> dict[int, str]:
        return {4: address, 6: ipv6_of(self.prefix, address)}

    def inside(self, task_id: str, own: dict[int, str], host: str) -> Asker:
        """A task asks by names; each has to see the source that it has itself."""
        cases = []
        for name in SERVICES:
            for protocol in PROTOCOLS:
                for family in FAMILIES:
                    words = f"{protocol} over IPv{family} from a task on {host} to {name} by its"
                    by_vip = frozenset(
                        Answer(self.vips[name][family], name, task, own[family]) for task in self.tasks[name]
                    )
                    cases.append(Case(f"{words} VIP", Question(REPLICAS, protocol, family, name, PORT), by_vip))
                    direct = f"{name}-direct"
                    by_name = frozenset(
                        Answer(addresses[family], direct, task, own[family])
                        for task, addresses in self.tasks[direct].items()
                    )
                    cases.append(
                        Case(f"{words} dnsrr name", Question(REPLICAS, protocol, family, direct, PORT), by_name)
                    )
        return Asker(lambda text: run_in_task(self.cluster, task_id, "python3", "-c", ASKING, text), cases)

    def outside(self) -> Asker:
        """The client asks every host, whether or not a task is there; each task has to see the client itself."""
        lab = self.cluster.lab
        own = dict(zip(FAMILIES, both_addresses(lab.address("client")), strict=True))
        cases = []
        for host in lab.hosts():
            addresses = dict(zip(FAMILIES, both_addresses(lab.address(host)), strict=True))
            for name in SERVICES:
                for protocol in PROTOCOLS:
                    for family in FAMILIES:
                        asked, source, direct = addresses[family], own[family], f"{name}-direct"
                        words = f"{protocol} over IPv{family} from the client at {host} to {name}'s port of"
                        anywhere = frozenset(Answer(asked, name, task, source) for task in self.tasks[name])
                        question = Question(REPLICAS, protocol, family, asked, PUBLISHED[name])
                        cases.append(Case(f"{words} every host", question, anywhere))
                        here = self.hosts[direct].get(host)
                        there = frozenset({Answer(asked, direct, here, source)} if here else ())
                        question = Question(1, protocol, family, asked, HOST_MODE[name])
                        cases.append(Case(f"{words} host mode", question, there))
        return Asker(lambda text: lab.run_in("client", [sys.executable, "-c", ASKING, text]).stdout, cases)


def wrong_cells(askers: list[Asker]) -> tuple[list[Asker], list[str]]:
    """Asks all cells, all askers at once; those that are not as they have to be, also in words."""
    with ThreadPoolExecutor(len(askers)) as pool:
        texts = list(pool.map(lambda asker: asker.ask(questions_text([case.question for case in asker.cases])), askers))
    again, wrong = [], []
    for asker, text in zip(askers, texts, strict=True):
        cases = []
        for case, reply in zip(asker.cases, replies_of(text), strict=True):
            refused = isinstance(reply, str)
            if (case.expected and reply != case.expected) or (not case.expected and not refused):
                wanted = sorted(case.expected) or "no answer"
                wrong.append(f"{case.words}: {reply if refused else sorted(reply)}, and not {wanted}")
                cases.append(case)
        if cases:
            again.append(Asker(asker.ask, cases))
    return again, wrong


def wrong_in_the_end(table: Table) -> list[str]:
    """Cells that stay wrong, in words: hosts hear of what is ready a moment later, and a busy one answers late."""
    askers, began = table.askers, time.monotonic()
    while True:
        askers, wrong = wrong_cells(askers)
        if not wrong or time.monotonic() - began > ASKED_SECONDS_MAX:
            return wrong


def test_every_way_to_a_service_leads_there_and_shows_who_asks(
    plain_again: Cluster, deployed: Callable[[str], str]
) -> None:
    cluster = plain_again
    table = Table(cluster, deployed(compose()))
    assert all(len(hosts) == REPLICAS for service, hosts in table.hosts.items() if service.endswith("direct"))
    for encryption in ("plain", "encrypted"):
        if encryption == "encrypted":
            cluster.fairway("net", "encryption", "set", "wireguard", "--timeout", "60s")
            assert cluster.json("net", "encryption", "status")["state"]["sending"] > 0
        count = sum(len(asker.cases) for asker in table.askers)
        assert count == 3 * 2 * 2 * 2 * 2 + 3 * 2 * 2 * 2 * 2
        wrong = wrong_in_the_end(table)
        assert not wrong, f"{encryption}: {len(wrong)} of {count} are wrong:\n" + "\n".join(wrong)
