"""Services of other kinds than a number of equal tasks: global ones, jobs, schedules, and tasks that run once."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from tests.system.cluster import Cluster, run_in_task

Deploy = Callable[[str], str]
SLEEPER = """
    image: static-web:1
    command: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
"""


def hosts_of(cluster: Cluster, service: str) -> list[str]:
    names = cluster.node_names()
    tasks = [task for task in cluster.tasks(service) if task["status"]["ready"]]
    return sorted(names[task["node_id"]] for task in tasks)


def test_a_global_service_follows_the_hosts(cluster: Cluster, deployed: Deploy) -> None:
    text = (
        f"services:\n  agent:{SLEEPER}    volumes: ['data:/data']\n    deploy: {{mode: global%s}}\nvolumes: {{data: }}"
    )
    app = deployed(text % "")
    service = f"{app}/agent"
    assert hosts_of(cluster, service) == cluster.lab.hosts()
    cluster.fairway("node", "drain", "host-3", "--timeout", "60s")
    assert hosts_of(cluster, service) == ["host-1", "host-2"]
    cluster.fairway("node", "activate", "host-3")
    cluster.wait(lambda: hosts_of(cluster, service) == cluster.lab.hosts(), "host-3 has its task again")
    without = text % ", placement: {constraints: [node.hostname != host-2]}"
    cluster.deploy(f"name: {app}\n{without}")
    assert hosts_of(cluster, service) == ["host-1", "host-3"]


def test_each_slot_of_a_stateful_service_keeps_its_own_data(cluster: Cluster, deployed: Deploy) -> None:
    text = f"""
services:
  db:{SLEEPER}
    environment: {{ROUND: "%s"}}
    volumes: ["data:/data"]
    deploy: {{replicas: 2}}
    x-fairway: {{stateful: true}}
volumes: {{data: }}
"""
    app = deployed(text % 1)
    for slot in (1, 2):
        run_in_task(cluster, f"{app}/db.{slot}", "sh", "-c", f"echo {slot} >> /data/slot")
    cluster.deploy(f"name: {app}\n{text % 2}")
    for slot in (1, 2):
        assert run_in_task(cluster, f"{app}/db.{slot}", "sh", "-c", "cat /data/slot; echo $ROUND") == f"{slot}\n2\n"
    first, second = sorted(cluster.tasks(f"{app}/db"), key=lambda task: int(task["slot"]))
    assert int(first["status"]["started_unix_ms"]) < int(second["status"]["started_unix_ms"])


def test_a_job_is_followed_to_its_end(cluster: Cluster, deployed: Deploy) -> None:
    script = 'echo done by $$(hostname); case "$$FAILS" in yes) exit 3;; esac'
    text = f"""
services:
  work:
    image: static-web:1
    command: ["sh", "-c", '{script}']
    environment: {{FAILS: "%s"}}
    deploy: {{mode: replicated-job, replicas: 4, restart_policy: {{max_attempts: 1, delay: 100ms}}}}
    x-fairway: {{job: {{parallelism: 2}}}}
  after:{SLEEPER}
    depends_on: {{work: {{condition: service_completed_successfully}}}}
"""
    app = deployed(text % "no")
    (run,) = cluster.json("show", f"{app}/work")["service"]["runs"]
    assert (run["outcome"], run["succeeded"], run["wanted"]) == ("succeeded", 4, 4)
    cluster.wait(lambda: cluster.fairway("logs", f"{app}/work").stdout.count("done by") == 4, "all four have written")
    assert hosts_of(cluster, f"{app}/after")
    again = cluster.fairway("trigger", f"{app}/work")
    assert "4/4 completed" in again.stdout
    failed = cluster.deploy(f"name: {app}\n{text % 'yes'}", ok=False)
    assert failed.returncode == 7
    assert "exit code 3" in failed.stdout + failed.stderr


def test_a_job_with_a_schedule_waits_for_its_moment_and_can_be_begun_by_hand(
    cluster: Cluster, deployed: Deploy
) -> None:
    app = deployed("""
services:
  nightly:
    image: static-web:1
    command: ["true"]
    deploy: {mode: replicated-job}
    x-fairway: {schedule: {cron: "0 3 31 12 *", time_zone: Europe/Berlin}}
""")
    assert not cluster.json("ps", f"{app}/nightly")

    def next_run() -> int:
        return int(cluster.json("show", f"{app}/nightly")["service"]["next_run_unix_ms"])

    cluster.wait(lambda: next_run() > 0, "the leader knows its next moment")
    moment = datetime.datetime.fromtimestamp(next_run() / 1000, datetime.UTC)
    assert (moment.month, moment.day, moment.hour) == (12, 31, 2)
    cluster.fairway("trigger", f"{app}/nightly")
    (run,) = cluster.json("show", f"{app}/nightly")["service"]["runs"]
    assert run["outcome"] == "succeeded"


def test_run_gives_back_what_the_command_wrote_and_its_exit_status(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"services:\n  box:{SLEEPER}    environment: {{WHO: box}}")
    ran = cluster.fairway("run", f"{app}/box", "--", "sh", "-c", "echo I am like $WHO; echo oh >&2; exit 7", ok=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "I am like box\n", "oh\n")
    alone = cluster.fairway("run", "static-web:1", "--", "sh", "-c", "seq 1000")
    assert alone.stdout.split() == [str(number) for number in range(1, 1001)]
    assert cluster.fairway("run", "static-web:1", "--", "no-such-program", ok=False).returncode in (125, 127)
    cluster.wait(lambda: len(cluster.json("ps", "-a")) == 1, "nothing is left of them")
    cluster.wait(lambda: cluster.fairway("ls", "-q").stdout.split() == [app], "and no app")
