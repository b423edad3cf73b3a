"""The prober's conditions and metrics over a network that the test breaks; its time is simulated."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing

from daemon.agent.reports import Reports
from daemon.doctor.metrics import Registry
from daemon.doctor.prober import LARGE, OVERLAY, UNDERLAY, Prober
from net.model import DesiredNetwork, Host, NetworkConfig
from net.network import Network
from proto import objects_pb2 as objects

HOSTS = tuple(Host(f"n{n}", f"host-{n}", f"192.0.2.{n}", f"10.112.{n}.0/24", f"10.112.{n}.1", "", n) for n in (1, 2, 3))


class Paths:
    """Stands in for `Network`: answers all but what is lost."""

    def __init__(self) -> None:
        self.desired = DesiredNetwork(NetworkConfig("10.112.0.0/13", "10.120.0.0/16"), HOSTS[0], HOSTS)
        self.lost: set[tuple[str, int]] = set()
        self.lost_once: set[str] = set()

    def mtu_bytes_to(self, _node_id: str) -> int:
        return 1450

    async def probe(self, address: str, packet_bytes: int) -> float | None:
        await trio.lowlevel.checkpoint()
        if address in self.lost_once:
            self.lost_once.remove(address)
            return None
        return None if (address, packet_bytes) in self.lost or (address, 0) in self.lost else 0.001


def probing() -> tuple[Paths, Prober, Reports, Registry]:
    paths, reports, registry = Paths(), Reports(), Registry()
    return paths, Prober(cast(Network, paths), reports, registry), reports, registry


def conditions(reports: Reports) -> list[tuple[str, str]]:
    return [(each.kind, each.node_id) for each in reports.first("192.0.2.1").conditions]


async def rounds(prober: Prober, paths: Paths, count: int) -> None:
    for period in range(count):
        await prober._round(paths.desired, period)


def run(work: Any) -> None:
    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


def test_all_is_well_is_reported_once() -> None:
    async def work() -> None:
        paths, prober, reports, registry = probing()
        await rounds(prober, paths, 1)
        assert reports.next().conditions_changed
        await rounds(prober, paths, 3)
        assert not reports.next().conditions_changed
        assert conditions(reports) == []
        text = registry.text()
        assert f'fairway_probes_answered_total{{path="{UNDERLAY}"}} 8' in text
        assert f'fairway_path_seconds{{path="{OVERLAY}",peer="host-2"}} 0.001' in text

    run(work)


def test_only_the_simplest_path_that_fails_is_a_condition() -> None:
    async def work() -> None:
        paths, prober, reports, registry = probing()
        for lost, path in (
            (("10.112.2.1", 1450), LARGE),
            (("10.112.2.1", 0), OVERLAY),
            (("192.0.2.2", 0), UNDERLAY),
        ):
            paths.lost.add(lost)
            await rounds(prober, paths, 1)
            before = conditions(reports)
            await rounds(prober, paths, 1)
            assert conditions(reports) == [(path, "n2")] != before
            assert f'fairway_path_failing{{path="{path}",peer="host-2"}} 1' in registry.text()
        paths.lost.clear()
        await rounds(prober, paths, 1)
        assert conditions(reports) == []
        assert "fairway_path_failing{" not in registry.text()

    run(work)


def test_loss_is_a_condition_of_its_own() -> None:
    async def work() -> None:
        paths, prober, reports, _ = probing()
        for period in range(20):  # every second probe of the first attempt is lost
            paths.lost_once = {"192.0.2.2"} if period % 2 else set()
            await prober._round(paths.desired, period)
        assert conditions(reports) == [("underlay loss", "n2")]

    run(work)


def test_a_host_that_is_removed_takes_its_conditions_with_it() -> None:
    async def work() -> None:
        paths, prober, reports, _ = probing()
        paths.lost.add(("192.0.2.3", 0))
        await rounds(prober, paths, 2)
        assert conditions(reports) == [(UNDERLAY, "n3")]
        paths.desired = DesiredNetwork(paths.desired.config, HOSTS[0], HOSTS[:2])
        await rounds(prober, paths, 1)
        assert conditions(reports) == []

    run(work)


def test_conditions_in_the_words_of_people() -> None:
    async def work() -> None:
        paths, prober, _, _ = probing()
        paths.lost.add(("10.112.3.1", 0))
        await rounds(prober, paths, 2)
        message = "probes of host-3 over the overlay (10.112.3.1) are not answered, those over the underlay are"
        assert prober.failing() == [objects.NodeCondition(kind=OVERLAY, node_id="n3", message=message)]

    run(work)


def test_the_first_report_says_nothing_of_conditions_before_anyone_looked() -> None:
    assert not Reports().first("192.0.2.1").conditions_changed
