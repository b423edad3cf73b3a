"""Encryption between hosts on the whole: turned on and off and with new keys under load, and hosts that cannot."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.system.cluster import Cluster, steady_load

HOSTS = ("host-1", "host-2", "host-3")


@pytest.fixture
def plain_again(site: Cluster) -> Iterator[Cluster]:
    """The site's cluster, which sends in the clear when the test is over."""
    yield site
    site.fairway("net", "encryption", "set", "none", "--timeout", "60s")


def wireguard_process(cluster: Cluster, host: str) -> str:
    """The id that wireguard-go has on the host; empty where the kernel does it."""
    return cluster.lab.run_in(host, ["sh", "-c", "pidof wireguard-go || true"]).stdout.strip()


def processes(cluster: Cluster) -> dict[str, str]:
    """By host, when the keys before have no process any more."""
    found: dict[str, str] = {}

    def one_each() -> bool:
        found.update({host: wireguard_process(cluster, host) for host in HOSTS})
        return all(" " not in each for each in found.values())

    cluster.wait(one_each, "what the keys before needed is gone")
    return found


def sending(cluster: Cluster) -> int:
    state: dict[str, int] = cluster.json("net", "encryption", "status")["state"]
    return state["sending"]


def test_no_request_fails_while_encryption_comes_changes_its_keys_and_goes(plain_again: Cluster) -> None:
    site = plain_again
    url = f"http://{site.vip('web')}:8000/"
    with steady_load(site, url) as finish:
        said = site.fairway("net", "encryption", "set", "wireguard", "--timeout", "60s")
        first = sending(site)
        assert first > 0 and "encrypted by the keys of epoch" in said.stdout
        site.fairway("net", "encryption", "rotate", "--timeout", "60s")
        assert sending(site) > first
        before = processes(site)
        site.restart("host-2")
        site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "host-2 is back")
        site.wait(lambda: site.json("net", "encryption", "status")["settled"], "it settled")
        assert processes(site) == before
        site.fairway("net", "encryption", "set", "none", "--timeout", "60s")
        assert sending(site) == 0
        result = finish()
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100
    site.wait(lambda: wireguard_process(site, "host-1") == "", "nothing of it is left")


def test_a_host_that_cannot_encrypt_says_why_gets_no_tasks_and_is_used_again(plain_again: Cluster) -> None:
    site, host = plain_again, "host-3"
    site.fairway("net", "encryption", "set", "wireguard", "--timeout", "60s")
    process = processes(site)[host]
    if not process:
        pytest.skip("this kernel has WireGuard")
    program = site.lab.run_in(host, ["sh", "-c", "command -v wireguard-go"]).stdout.strip()
    site.lab.run_in(host, ["mount", "--bind", "/dev/null", program])
    try:
        site.lab.run_in(host, ["kill", f"-{signal.SIGKILL.value}", process])
        site.wait(
            lambda: "wireguard-go is not installed" in node(site, host)["state_message"], "the node says what it lacks"
        )
        words = f"{host} cannot encrypt and gets no tasks"
        site.wait(lambda: words in site.fairway("net", "encryption", "status").stdout, "the status says so")
        before = on_host(site, host)
        site.fairway("scale", "web=9")
        site.wait(lambda: site.ready("web", 9, "host-1"), "all run")
        assert on_host(site, host) <= before
    finally:
        site.lab.run_in(host, ["umount", program])
    site.wait(lambda: not node(site, host)["state_message"], "the node lacks nothing")
    site.wait(lambda: wireguard_process(site, host) not in ("", process), "it encrypts again")


def node(cluster: Cluster, name: str) -> dict[str, str]:
    found: dict[str, str] = next(
        view["node"] for view in cluster.json("node", "ls") if view["node"]["meta"]["name"] == name
    )
    return found


def on_host(cluster: Cluster, name: str) -> set[str]:
    names = cluster.node_names()
    return {task["meta"]["id"] for task in cluster.tasks("web") if names[task["node_id"]] == name}
