"""Probes of running tasks, and a number of tasks that follows their load."""

from __future__ import annotations

import re
from collections.abc import Callable

from cli.failure import EXIT_ROLLED_BACK
from tests.system.cluster import Cluster, run_in_task

Deploy = Callable[[str], str]
PROBED = """
services:
  web:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    expose: ["8000"]
    command:
      - sh
      - -c
      - mkdir /tmp/w; cd /tmp/w; touch live ready; (sleep 1; touch start) & exec httpd -f -p 8000 -h /tmp/w
    healthcheck: {test: [CMD, "true"], interval: 300ms, start_interval: 300ms}
    deploy: {replicas: 2}
    x-fairway:
      probes:
        start: {http: {port: 8000, path: /start, expect: 200}, interval: 200ms}
        live: {exec: [test, -e, /tmp/w/live], interval: 300ms, failures: 2, timeout: 20s}
        ready: {http: {port: 8000, path: /ready}, interval: 300ms, failures: 2, timeout: 20s}
  plain:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    x-fairway: {probes: {ready: {tcp: {port: 8000}, interval: 300ms}}}
"""


def ids(cluster: Cluster, service: str) -> dict[int, str]:
    """Slot -> task."""
    return {int(task["slot"]): str(task["meta"]["id"]) for task in cluster.tasks(service)}


def test_probes_decide_who_gets_traffic_and_who_is_replaced(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(PROBED)
    web, names = f"{app}/web", cluster.node_names()
    before = ids(cluster, web)
    first, second = sorted(cluster.tasks(web), key=lambda task: int(task["slot"]))
    assert cluster.serving(web) == {first["address"], second["address"]}
    assert cluster.serving(f"{app}/plain")
    for task in (first, second):  # the start probe held them back
        assert int(task["status"]["reported_unix_ms"]) - int(task["status"]["started_unix_ms"]) > 500

    run_in_task(cluster, f"{web}.1", "rm", "/tmp/w/ready")
    cluster.wait(lambda: cluster.serving(web) == {second["address"]}, "a task that is not ready gets no traffic")
    assert "running (not ready)" in cluster.fairway("ps", web).stdout
    cluster.wait(lambda: "HTTP 404" in cluster.fairway("why", f"{web}.1").stdout, "it is said why")
    cluster.restart(names[first["node_id"]])
    assert cluster.serving(web) == {second["address"]}
    run_in_task(cluster, f"{web}.1", "touch", "/tmp/w/ready")
    cluster.wait(lambda: len(cluster.serving(web)) == 2, "it is ready again")
    assert ids(cluster, web) == before

    run_in_task(cluster, f"{web}.2", "rm", "/tmp/w/live")
    cluster.wait(lambda: ids(cluster, web).get(2) not in (None, before[2]), "a task that is not alive is replaced")
    cluster.wait(lambda: len(cluster.serving(web)) == 2, "its successor is ready")
    assert ids(cluster, web)[1] == before[1]
    assert "its live probe failed 2 times in a row" in cluster.ended_task(web)["status"]["message"]


SCALED = """
services:
  web:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    expose: ["8000"]
    command: ["sh", "-c", "mkdir /tmp/w; echo jobs 0 > /tmp/w/metrics; exec httpd -f -p 8000 -h /tmp/w"]
    x-fairway:
      autoscale:
        max: 4
        connections: 2
        metric: {port: 8000, name: jobs, target: 5}
        stabilisation: 5s
  caller:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    command:
      - sh
      - -c
      - mkfifo /tmp/f; exec 3<>/tmp/f;
        for i in 1 2 3 4 5 6; do (while :; do nc web 8000 <&3; sleep 0.2; done) & done; wait
    depends_on: {web: {condition: service_healthy}}
    deploy: {replicas: %d}
  busy:
    image: static-web:1
    stop_grace_period: 0s
    command: ["sh", "-c", "while :; do :; done"]
    deploy: {resources: {limits: {cpus: "0.1"}}}
    x-fairway: {autoscale: {max: 2, cpu: 50%%}}
  large:
    image: static-web:1
    stop_grace_period: 0s
    command: ["sh", "-c", "head -c 30000000 /dev/zero | tail -c 29000000 | (sleep 1000; cat)"]
    deploy: {resources: {limits: {memory: 48m}}}
    x-fairway: {autoscale: {max: 2, memory: 40%%}}
"""


def test_the_number_of_tasks_follows_their_load_and_a_metric(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(SCALED % 1)
    web = f"{app}/web"
    cluster.wait(lambda: len(cluster.serving(web)) == 3, "six connections take three tasks")
    cluster.wait(lambda: "connections of a task is" in cluster.fairway("why", web).stdout, "it is said why")
    cluster.wait(lambda: len(cluster.serving(f"{app}/busy")) == 2, "their CPU takes two tasks")
    cluster.wait(lambda: len(cluster.serving(f"{app}/large")) == 2, "their memory takes two tasks")
    cluster.wait(lambda: "memory" in cluster.fairway("why", f"{app}/large").stdout, "it is said why")
    assert "cannot be scaled by hand" in cluster.refused("scale", f"{web}=1")
    run_in_task(cluster, f"{web}.1", "sh", "-c", "echo jobs 10 > /tmp/w/metrics")
    cluster.deploy(f"name: {app}\n{SCALED % 0}")  # which says nothing of the number, and ends the connections
    cluster.wait(lambda: len(cluster.serving(web)) == 2, "ten jobs take two tasks")

    def says_so() -> bool:  # there may have been four for a moment
        shown, events = (cluster.fairway(*words).stdout for words in (("show", web), ("events", "--app", app)))
        fewer = "2 tasks of 1 to 4 by load" in shown and re.search(r"from [34] to 2", shown)
        return bool(fewer) and re.search(r"[34] replicas -> 2 replicas \(", events) is not None

    cluster.wait(says_so, "it is said how many there are and were")


CANARY = """
services:
  web:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    expose: ["8000"]
    command:
      - sh
      - -c
      - mkdir /tmp/w; (echo errors ERRORS; echo requests 100) > /tmp/w/metrics; exec httpd -f -p 8000 -h /tmp/w
    deploy: {replicas: 2}
    x-fairway:
      rollout:
        strategy: canary
        steps: [{share: 50%, wait: 500ms}]
        check: {port: 8000, name: errors, of: requests, max: 1%}
"""


def test_a_canary_goes_on_or_back_by_what_its_new_tasks_say(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(CANARY.replace("ERRORS", "0"))
    before = ids(cluster, f"{app}/web")
    done = cluster.deploy(f"name: {app}\n{CANARY.replace('ERRORS', '5')}", ok=False)
    assert done.returncode == EXIT_ROLLED_BACK, done.stdout + done.stderr
    said = "5% of requests, and may be 1%"
    cluster.wait(lambda: said in cluster.fairway("events", "--app", app).stdout, "events say why")

    def is_back() -> bool:  # the other was replaced, and again
        now = ids(cluster, f"{app}/web")
        return len(now) == 2 == len(cluster.serving(f"{app}/web")) and len(before.items() & now.items()) == 1

    cluster.wait(is_back, "it is back at two tasks, one of which was never stopped")
    cluster.deploy(f"name: {app}\n{CANARY.replace('ERRORS', '1')}")
    assert not before.items() & ids(cluster, f"{app}/web").items()
