"""What a Compose file asks for is what the application gets: seen from inside its containers and from outside."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.system.cluster import Cluster, run_in_task

Deploy = Callable[[str], str]
WEB = """
  {name}:
    image: static-web:1
    stop_grace_period: 1s
    init: true
"""
SLEEPER = """
    image: static-web:1
    command: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
"""


def test_container_settings_are_those_of_the_file(cluster: Cluster, deployed: Deploy) -> None:
    (cluster.folder / "site.env").write_text("FROM_FILE=file\nBOTH=file\n")
    app = deployed(f"""
services:
  box:
    {SLEEPER.strip()}
    environment: {{BOTH: key, HERE: "a b"}}
    env_file: site.env
    user: "999:999"
    working_dir: /www
    hostname: boxy
    read_only: true
    tmpfs: /scratch
    cap_drop: [ALL]
    security_opt: [no-new-privileges]
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64m, pids: 50}}}}}}
  words:
    image: static-web:1
    entrypoint: ["/bin/sh", "-c"]
    command: ["echo said by $$0 $$1; exec sleep 100000", "entry", "point"]
    init: true
    stop_grace_period: 1s
""")
    box = f"{app}/box"
    seen = run_in_task(cluster, box, "sh", "-c", "env; id -u; id -g; pwd; hostname").splitlines()
    assert {"FROM_FILE=file", "BOTH=key", "HERE=a b"} <= set(seen)
    assert seen[-4:] == ["999", "999", "/www", "boxy"]
    status = run_in_task(cluster, box, "cat", "/proc/self/status")
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    written = cluster.fairway("exec", box, "--", "touch", "/www/new", ok=False)
    assert written.returncode == 1
    assert "Read-only file system" in written.stderr
    run_in_task(cluster, box, "touch", "/scratch/new")
    assert " /scratch tmpfs " in run_in_task(cluster, box, "cat", "/proc/mounts")
    limits = (
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max memory.max pids.max"
    )
    found = run_in_task(cluster, box, "sh", "-c", f"({limits}) 2>/dev/null; true")
    if found:  # where the container sees its control group
        assert str(64 << 20) in found.split()
        assert "50" in found.split()
    cluster.wait(lambda: "said by entry point" in cluster.fairway("logs", f"{app}/words").stdout, "it has said so")


def test_exec_takes_input_and_gives_exit_codes(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"services:\n  box:{SLEEPER}")
    assert cluster.fairway("exec", f"{app}/box", "--", "sh", "-c", "exit 7", ok=False).returncode == 7
    assert cluster.fairway("exec", f"{app}/box", "--", "no-such-program", ok=False).returncode == 127
    follower = next(host for host in cluster.lab.hosts() if host != cluster.leader())
    passed_on = cluster.fairway("exec", f"{app}/box", "--", "no-such-program", host=follower, ok=False)
    assert passed_on.returncode == 127
    assert "no-such-program" in passed_on.stderr
    echoed = cluster.fairway("exec", "-i", f"{app}/box", "--", "cat", text_in="through\n")
    assert echoed.stdout == "through\n"
    words = cluster.fairway("exec", f"{app}/box", "--", "sh", "-c", "echo out; echo err >&2")
    assert (words.stdout, words.stderr) == ("out\n", "err\n")


def test_a_signal_and_a_grace_period_are_kept(cluster: Cluster, deployed: Deploy) -> None:
    script = "trap 'echo got usr1; exit 0' USR1; trap 'echo got term' TERM; echo up; while true; do sleep 0.1; done"
    text = f"""
services:
  polite:
    image: static-web:1
    environment: {{ROUND: "%s"}}
    command: ["sh", "-c", "{script}"]
    stop_signal: SIGUSR1
    stop_grace_period: 30s
  stubborn:
    image: static-web:1
    environment: {{ROUND: "%s"}}
    command: ["sh", "-c", "trap '' TERM; echo up; while true; do sleep 0.1; done"]
    stop_grace_period: 1s
"""
    app = deployed(text % (1, 1))
    cluster.wait(lambda: cluster.fairway("logs", app).stdout.count("| up\n") == 2, "both have set their traps")
    path = cluster.folder / "compose.yaml"
    path.write_text(f"name: {app}\n{text % (2, 2)}")
    cluster.fairway("deploy", str(path))  # the tasks that it replaces are remembered
    polite = cluster.ended_task(f"{app}/polite")
    assert polite["status"]["exit_code"] == 0
    assert polite["status"]["state"] == "exited"
    stubborn = cluster.ended_task(f"{app}/stubborn")
    assert stubborn["status"]["exit_code"] == 137
    took_ms = stubborn["status"]["finished_unix_ms"] - polite["status"]["finished_unix_ms"]
    assert took_ms < 20_000


def test_a_named_volume_keeps_its_data_and_ties_the_task_to_its_host(cluster: Cluster, deployed: Deploy) -> None:
    text = f"""
services:
  store:{SLEEPER}
    volumes: ["data:/data"]
    environment: {{ROUND: "%s"}}
volumes: {{data: {{}}}}
"""
    app = deployed(text % "1")
    before = cluster.tasks(f"{app}/store")[0]
    run_in_task(cluster, f"{app}/store", "sh", "-c", "echo kept > /data/file")
    path = cluster.folder / "compose.yaml"
    path.write_text(f"name: {app}\n{text % '2'}")
    assert "ROUND" in cluster.fairway("plan", str(path)).stdout
    cluster.fairway("deploy", str(path))
    after = cluster.tasks(f"{app}/store")[0]
    assert after["meta"]["id"] != before["meta"]["id"]
    assert after["node_id"] == before["node_id"]
    assert run_in_task(cluster, f"{app}/store", "cat", "/data/file") == "kept\n"
    host = cluster.node_names()[before["node_id"]]
    assert f"data at /data (on {host})" in cluster.fairway("show", f"{app}/store").stdout
    cluster.fairway("node", "cordon", host)
    try:
        cluster.fairway("exec", f"{app}/store", "--", "kill", "1", ok=False)

        def waits_for_its_host() -> bool:
            reasons = cluster.pending_reasons(f"{app}/store")
            return host in reasons and "volume" in reasons

        cluster.wait(waits_for_its_host, "it waits for its host, and says so")
    finally:
        cluster.fairway("node", "activate", host)
    cluster.wait(lambda: cluster.ready(f"{app}/store", 1, "host-1"), "it runs again")
    assert run_in_task(cluster, f"{app}/store", "cat", "/data/file") == "kept\n"


def test_a_failing_health_check_takes_traffic_away_and_replaces_the_task(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
services:
  web:{WEB.partition(":")[2]}
    expose: ["8000"]
    healthcheck: {{test: ["CMD", "test", "!", "-e", "/tmp/sick"], interval: 300ms, timeout: 1s, retries: 2}}
    deploy: {{replicas: 2}}
""")
    sick = cluster.tasks(f"{app}/web")[0]
    task = f"{app}/{sick['meta']['name']}"
    cluster.fairway("exec", sick["meta"]["id"], "--", "touch", "/tmp/sick")
    cluster.wait(lambda: sick["address"] not in cluster.serving(f"{app}/web"), f"{task} gets no traffic")
    cluster.wait(lambda: cluster.ready(f"{app}/web", 2, "host-1"), "another task took its place")
    cluster.wait(
        lambda: sick["meta"]["id"] not in {one["meta"]["id"] for one in cluster.tasks(f"{app}/web")}, f"{task} is gone"
    )
    assert "unhealthy" in cluster.ended_task(f"{app}/web")["status"]["message"]


def test_a_crashing_service_is_tried_again_later_and_later(cluster: Cluster, deployed: Deploy) -> None:
    path = cluster.folder / "crash.yaml"
    path.write_text(f"""
name: crash-{cluster.lab.name}
services:
  web: {{image: "static-web:1", command: ["sh", "-c", "echo broken; exit 3"], restart: always}}
  once: {{image: "static-web:1", command: ["sh", "-c", "exit 4"], restart: "no"}}
  twice: {{image: "static-web:1", command: ["sh", "-c", "exit 5"], restart: "on-failure:1"}}
""")
    name = f"crash-{cluster.lab.name}"
    try:
        cluster.fairway("deploy", str(path), "--detach")

        def waits_and_says_why() -> bool:  # for a moment only: then it runs again
            shown = cluster.fairway("ps", f"{name}/web").stdout
            return re.search(r"number ([2-9]|\d\d) in a row", shown) is not None and "exit code 3" in shown

        cluster.wait(waits_and_says_why, "it waits longer")
        cluster.wait(lambda: "failed (4)" in cluster.fairway("ps", f"{name}/once").stdout, "one run was all")
        cluster.wait(lambda: len(cluster.json("ps", f"{name}/twice", "-a")) == 2, "there was a second run")
        cluster.wait(lambda: "failed (5)" in cluster.fairway("ps", f"{name}/twice").stdout, "and no third")
        cluster.wait(lambda: "broken" in cluster.fairway("logs", f"{name}/web").stdout, "it has said so")
    finally:
        cluster.remove(name)


def test_dependencies_are_waited_for(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed("""
services:
  last:
    image: static-web:1
    init: true
    command: ["sleep", "100000"]
    stop_grace_period: 1s
    depends_on:
      check: {condition: service_healthy}
      job: {condition: service_completed_successfully}
  check:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    command: ["sh", "-c", "sleep 1; touch /tmp/well; exec sleep 100000"]
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/well"], interval: 200ms, timeout: 1s, retries: 100}
  job:
    image: static-web:1
    command: ["sh", "-c", "sleep 1"]
    restart: on-failure
""")
    tasks = {task["service"]: task["status"] for task in cluster.json("ps", app, "-a")}
    assert tasks["job"]["exit_code"] == 0
    assert tasks["job"]["state"] == "exited"
    assert tasks["last"]["started_unix_ms"] >= tasks["job"]["finished_unix_ms"]
    assert (
        tasks["last"]["started_unix_ms"] >= tasks["check"]["started_unix_ms"] + 500
    )  # what it sleeps, less what noting its start took


def test_a_task_that_uses_too_much_memory_says_so(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
services:
  box:{SLEEPER}
    restart: "no"
    deploy: {{resources: {{limits: {{memory: 16m}}}}}}
""")
    hog = "x=$(head -c 64m /dev/zero | tr '\\\\0' x); echo $x | wc -c"
    path = cluster.folder / "compose.yaml"
    path.write_text(f"""
name: {app}
services:
  box:
    image: static-web:1
    command: ["sh", "-c", "{hog.replace("$", "$$")}"]
    restart: "no"
    deploy: {{resources: {{limits: {{memory: 16m}}}}}}
""")
    cluster.fairway("deploy", str(path), "--detach")
    cluster.wait(lambda: "out of memory" in cluster.fairway("ps", f"{app}/box", "-a").stdout, "ps says why it ended")
