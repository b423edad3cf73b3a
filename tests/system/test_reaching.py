"""Who reaches whom: names, networks, published ports, the client's address, scaling and updating under load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.system.cluster import APP, Cluster, run_in_task, steady_load

Deploy = Callable[[str], str]
PORT = 8097
WEB = """
    image: shop-api:1
    expose: ["8000"]
    stop_grace_period: 1s
"""
GET = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=2).read().decode())"
PROBE = """
import sys, threading, urllib.request
answered = set()
def ask(host):
    try:
        if urllib.request.urlopen(f"http://{host}:8000/healthz", timeout=1).read() == b"ok\\n":
            answered.add(host)
    except OSError:
        pass
asking = [threading.Thread(target=ask, args=(host,)) for host in sys.argv[1:]]
for thread in asking:
    thread.start()
for thread in asking:
    thread.join()
print(*(host for host in sys.argv[1:] if host in answered))
"""
WHO = """
services:
  who:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    ports: ["%d:8000"]
    entrypoint: ["sh", "-c"]
    command:
      - |
        mkdir -p /tmp/www/cgi-bin
        cd /tmp/www/cgi-bin
        printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\n\\\\n"\\necho "$$REMOTE_ADDR"\\n' > who
        chmod +x who
        exec httpd -f -p 8000 -h /tmp/www
"""


def reached(cluster: Cluster, task: str, *hosts: str) -> list[str]:
    """Those of `hosts` (names or addresses) of which a task gets http://HOST:8000/healthz."""
    return run_in_task(cluster, task, "python3", "-c", PROBE, *hosts).split()


def test_networks_keep_apart_what_shares_none(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
services:
  left:{WEB}    networks: [one]
  right:{WEB}    networks: [two]
  both:{WEB}    networks: [one, two]
networks: {{one: {{}}, two: {{}}}}
""")
    address = cluster.tasks(f"{app}/right")[0]["address"]
    places = ["right", f"right.{app}", "1.right", "right.1", cluster.vip(f"{app}/right"), address]
    cluster.wait(lambda: reached(cluster, f"{app}/both", "left", *places) == ["left", *places], "both reaches all")
    cluster.wait(lambda: "both" in reached(cluster, f"{app}/left", "both"), "left reaches both")
    assert reached(cluster, f"{app}/left", *places) == []


def test_apps_do_not_reach_each_other(cluster: Cluster, deployed: Deploy) -> None:
    first = deployed(f"services:\n  web:{WEB}")
    second = deployed(f"services:\n  web:{WEB}")
    address = cluster.tasks(f"{second}/web")[0]["address"]
    places = (f"web.{second}", cluster.vip(f"{second}/web"), address)
    cluster.wait(
        lambda: reached(cluster, f"{second}/web", "web", *places) == ["web", *places], "the app reaches itself"
    )
    cluster.wait(lambda: reached(cluster, f"{first}/web", "web") == ["web"], "the other app reaches itself")
    assert reached(cluster, f"{first}/web", *places) == []


def test_a_published_port_answers_on_every_host_and_sees_the_client(cluster: Cluster, deployed: Deploy) -> None:
    deployed(WHO % PORT)

    def seen(host: str) -> str:
        """Whom the service sees; empty where nobody answers."""
        url = f"http://{cluster.lab.address(host)}:{PORT}/cgi-bin/who"
        answer = cluster.lab.run_in("client", [sys.executable, "-c", GET, url], check=False).stdout.strip()
        return answer.strip("[]").removeprefix("::ffff:")

    found: list[str] = []

    def answer() -> bool:
        found[:] = map(seen, cluster.lab.hosts())
        return all(found)

    cluster.wait(answer, "every host answers")
    assert set(found) == {cluster.lab.address("client")}


@pytest.fixture
def loaded_app(cluster: Cluster) -> Iterator[str]:
    name = f"load-{cluster.lab.name}"
    yield name
    cluster.remove(name)


def test_scaling_and_updating_fail_no_request(cluster: Cluster, loaded_app: str) -> None:
    text = APP.replace("8080", "8096").replace("name: site", f"name: {loaded_app}")
    cluster.deploy(text.format(replicas=3))
    web = f"{loaded_app}/web"
    before = {task["meta"]["id"] for task in cluster.tasks(web)}
    cluster.wait_served(web, 8000)
    with steady_load(cluster, f"http://{cluster.vip(web)}:8000/") as finish:
        cluster.fairway("scale", f"{web}=5")
        cluster.wait(lambda: cluster.ready(web, 5, "host-1"), "five tasks are ready")
        cluster.fairway("scale", f"{web}=2")
        cluster.wait(lambda: len(cluster.tasks(web)) == 2, "two tasks are left")
        path = cluster.folder / "new.yaml"
        path.write_text(text.format(replicas=3).replace("stop_grace", "environment: {NEW: 1}\n    stop_grace"))
        plan = cluster.fairway("plan", str(path)).stdout
        assert "~ service web" in plan
        assert "NEW" in plan
        assert "2 -> 3 tasks" in plan
        cluster.fairway("deploy", str(path))
        result = finish()
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100
    after = cluster.tasks(web)
    assert before.isdisjoint(task["meta"]["id"] for task in after)
    assert len(after) == 3
    assert all(task["spec"]["container"]["environment"] == {"NEW": "1"} for task in after)
    assert (
        "nothing to change" in cluster.fairway("plan", str(path)).stdout
        or "unchanged" in cluster.fairway("plan", str(path)).stdout
    )
