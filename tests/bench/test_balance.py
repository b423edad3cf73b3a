"""The benchmarks of balancing: their programs, what they read of nft, and their bars."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import balance, balance_peer, endpoints

ROOT = Path(__file__).parents[2]


def test_the_client_measures_every_place_it_is_given() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", "from bench import balance_peer as p; p.serve(0)"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        port = next(line.split()[3].rpartition(":")[2] for line in listed.splitlines() if f"pid={server.pid}," in line)
        for name, (figure, _, _) in ((name, figures[0]) for name, figures in balance.FIGURES.items()):
            words = [name, "0.1", f"one=127.0.0.1:{port}", f"two=127.0.0.2:{port}"]
            done = subprocess.run(
                [sys.executable, "-m", "bench.balance_peer", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            assert sorted(found) == ["one", "two"]
            assert all(each[figure] > 0 for each in found.values())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_turns_are_as_long_for_each() -> None:
    places = {"a": ("", 0), "b": ("", 0)}
    order = [name for name, _ in balance_peer.turns(places, 4 * balance_peer.TURN_SECONDS)]
    assert order == ["a", "b"] * 4


def test_bars_are_judged_by_pairs_of_one_run() -> None:
    found: balance.Found = {}
    for place in ("same host", "other host"):
        for name, figures in balance.FIGURES.items():
            for figure, _, more in figures:
                found[place, name, figure, "direct"] = [100.0, 200.0, 300.0]
                found[place, name, figure, "vip"] = [95.0, 190.0, 285.0] if more else [100.0, 200.0, 300.0]
                found[place, name, figure, "haproxy"] = [50.0, 100.0, 150.0]
    report = balance._report(found)
    assert report.bars_met()
    found["same host", "latency", "rate", "vip"] = [85.0, 170.0, 255.0]
    assert not balance._report(found).bars_met()


@pytest.mark.parametrize(
    ("line", "key", "backend"),
    [
        ("add element inet fairway_fw backends { 10.120.0.1 . 0x00000002 : 10.112.1.5 }", "10.120.0.1 2", "10.112.1.5"),
        (
            "delete element inet fairway_fw backends { 10.120.9.1 . 0x0000000a : 10.112.1.5 }",
            "10.120.9.1 10",
            "10.112.1.5",
        ),
    ],
)
def test_what_nft_says_of_backends_is_understood(line: str, key: str, backend: str) -> None:
    found = endpoints._LINE.search(line)
    assert found is not None
    assert (endpoints._slot(found["key"]), found["backend"]) == (key, backend)
    assert endpoints._LINE.search("add element inet fairway_fw vips { 10.120.0.1 : goto vip_random_3 }") is None
