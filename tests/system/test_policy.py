"""Policies on three hosts: in apps' files, applied apart, as dry runs, and their tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.cluster import Cluster
from tests.system.test_reaching import GET, WEB, reached

Deploy = Callable[[str], str]
PORT = 8098
SHOP = f"""
services:
  web:{WEB}    deploy: {{labels: {{role: front}}, placement: {{constraints: ["node.hostname == host-1"]}}}}
  cart:{WEB}    deploy: {{placement: {{constraints: ["node.hostname == host-2"]}}}}
  db:
    image: shop-api:1
    ports: ["{PORT}:8000"]
    stop_grace_period: 1s
    deploy: {{placement: {{constraints: ["node.hostname == host-2"]}}}}
    x-fairway:
      policy:
        ingress:
          - from: [{{labels: {{role: front}}}}]
            ports: [8000]
          - from: [{{cidr: 203.0.113.0/24}}]
  lonely:{WEB}    networks: [closed]
  friend:{WEB}    networks: [closed]
networks:
  default: {{}}
  closed:
    x-fairway: {{default: closed}}
"""


def says(cluster: Cluster, source: str, target: str, *port: str) -> bool:
    """What `net policy test` answers."""
    done = cluster.fairway("net", "policy", "test", source, target, *(port or ["8000"]), ok=False)
    assert done.returncode in (0, 6), done.stderr
    assert done.stdout.startswith("yes" if done.returncode == 0 else "no")
    return done.returncode == 0


@pytest.fixture
def applied(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Applies a policy of a name with this YAML below it; removed afterwards."""
    names: set[str] = set()

    def apply(name: str, text: str) -> None:
        file = tmp_path / "policies.yaml"
        file.write_text(f"policies:\n  - name: {name}\n{text}")
        names.add(name)
        cluster.fairway("net", "policy", "apply", str(file))

    yield apply
    for name in names:
        cluster.fairway("net", "policy", "rm", name, ok=False)


def test_policies_of_an_apps_file_and_those_applied_apart(
    cluster: Cluster, deployed: Deploy, applied: Callable[[str, str], None]
) -> None:
    shop = deployed(SHOP)
    other = deployed(f"services:\n  probe:{WEB}    deploy: {{labels: {{role: front}}}}\n")
    web, cart, db = (cluster.tasks(f"{shop}/{name}")[0]["address"] for name in ("web", "cart", "db"))
    vip = cluster.vip(f"{shop}/db")
    lonely = cluster.tasks(f"{shop}/lonely")[0]["address"]

    for source, wanted in ((f"{shop}/web", [db, vip]), (f"{shop}/cart", []), (f"{other}/probe", [])):
        if wanted:  # hosts hear of what is ready a moment later
            cluster.wait(lambda: reached(cluster, f"{shop}/web", db, vip) == [db, vip], "the policy lets it through")
        else:
            assert reached(cluster, source, db, vip) == []
        assert says(cluster, source, f"{shop}/db") == bool(wanted)
    cluster.wait(lambda: reached(cluster, f"{shop}/db", web, cart) == [web, cart], "what answers may ask")
    assert reached(cluster, f"{shop}/friend", lonely) == []
    assert not says(cluster, f"{shop}/friend", f"{shop}/lonely")
    outside = [sys.executable, "-c", GET, f"http://{cluster.lab.address('host-3')}:{PORT}/healthz"]
    assert cluster.lab.run_in("client", outside, check=False).returncode != 0
    assert not says(cluster, cluster.lab.address("client"), f"{shop}/db", str(PORT))
    assert says(cluster, "203.0.113.7", f"{shop}/db", str(PORT))

    # Applied apart: another app by its label, and the client.
    applied(
        f"{shop}-open",
        f"    selects: {{service: {shop}/db}}\n    ingress:\n"
        f"      - from: [{{app: {other}, labels: {{role: front}}}}, {{cidr: {cluster.lab.address('client')}/32}}]\n",
    )
    cluster.wait(lambda: reached(cluster, f"{other}/probe", db) == [db], "the policy is in force")
    assert reached(cluster, f"{shop}/cart", db) == []
    names = [f"db.{shop}", f"1.db.{shop}", f"web.{shop}"]
    cluster.wait(lambda: reached(cluster, f"{other}/probe", *names) == names[:2], "a name is known to who may reach it")
    cluster.wait(
        lambda: bool(cluster.fairway("net", "trace", f"{other}/probe", f"db.{shop}:8000")), "the trace says so"
    )
    cluster.wait(lambda: cluster.lab.run_in("client", outside).stdout == "ok\n", "the client gets in")
    assert says(cluster, f"{other}/probe", f"{shop}/db")

    def counted() -> bool:
        shown = cluster.json("net", "policy", "show", f"{shop}/db")[0]
        assert shown["selected"] == [f"{shop}/db"]
        denied = {(each["source"], each["target"], each["port"]) for each in shown["denials"]}
        return int(shown["packets"]) >= 3 and (f"{shop}/cart.1", f"{shop}/db.1", 8000) in denied

    cluster.wait(counted, "hosts have told what they counted")


def test_a_dry_run_counts_and_then_closes(
    cluster: Cluster, deployed: Deploy, applied: Callable[[str, str], None]
) -> None:
    app = deployed(f"services:\n  web:{WEB}  api:{WEB}")
    address = cluster.tasks(f"{app}/api")[0]["address"]
    name = f"{app}-api"
    text = f"    selects: {{app: {app}, service: api}}\n    ingress: []\n"
    applied(name, text + "    dry_run: true\n")

    def counted() -> bool:
        got_through = reached(cluster, f"{app}/web", address) == [address]
        return got_through and int(cluster.json("net", "policy", "show", name)[0]["packets"]) > 0

    cluster.wait(counted, "the dry run counts and closes nothing")
    tested = cluster.json("net", "policy", "test", f"{app}/web", f"{app}/api", "8000")
    assert tested["allowed"]
    assert name in tested["steps"][-1]["would"]
    applied(name, text)
    cluster.wait(lambda: reached(cluster, f"{app}/web", address) == [], "it closes")
    assert not says(cluster, f"{app}/web", f"{app}/api")
    cluster.fairway("net", "policy", "rm", name)
    cluster.wait(lambda: reached(cluster, f"{app}/web", address) == [address], "it opens again")
