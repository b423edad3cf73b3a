"""What surrounds a container: other apps' networks and volumes, hooks, init tasks, its log, and who ran it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.system.cluster import Cluster, run_in_task
from tests.system.terminal import Terminal

Deploy = Callable[[str], str]
BOX = """
    image: static-web:1
    init: true
    stop_grace_period: 3s
"""
SLEEPER = BOX + "    command: [sleep, '100000']\n"


def test_apps_share_a_network_and_a_volume(cluster: Cluster, deployed: Deploy) -> None:
    owner = deployed(
        f"services:\n  web:{BOX}    command: [httpd, -f, -p, '8000', -h, /data]\n"
        "    volumes: ['data:/data']\nvolumes: {data: }\n"
    )
    run_in_task(cluster, f"{owner}/web", "sh", "-c", "echo from the owner > /data/index.html")
    external = f"""
networks:
  theirs: {{external: true, name: {owner}_default}}
volumes:
  data: {{external: true, name: {owner}_data}}
"""
    guest = deployed(
        f"services:\n  box:{SLEEPER}    networks: [theirs]\n    volumes: ['data:/seen:ro']\n  alone:{SLEEPER}{external}"
    )
    try:
        assert run_in_task(cluster, f"{guest}/box", "cat", "/seen/index.html") == "from the owner\n"
        answer = run_in_task(cluster, f"{guest}/box", "wget", "-qO-", f"http://web.{owner}:8000/")
        assert answer == "from the owner\n"
        refused = cluster.fairway("exec", f"{guest}/alone", "--", "nslookup", f"web.{owner}", ok=False)
        assert refused.returncode != 0
        kept = cluster.fairway("rm", owner, ok=False)
        assert kept.returncode != 0
        assert f"{guest}/box" in kept.stderr
    finally:
        cluster.remove(guest)


def test_init_tasks_and_hooks_run_in_their_turn(cluster: Cluster, deployed: Deploy) -> None:
    text = f"""
services:
  web:{SLEEPER}
    volumes: ["data:/data"]
    environment: {{WHO: service}}
    post_start: [{{command: [sh, -c, "sleep 1; echo post $$WHO >> /data/order"], environment: {{WHO: hook}}}}]
    pre_stop: [{{command: [sh, -c, "echo stopping >> /data/order"]}}, {{command: ["false"]}}]
    x-fairway:
      init_tasks:
        - {{command: [sh, -c, "echo first $$WHO $$(hostname -i) >> /data/order; echo init said this"]}}
        - {{image: "static-web:1", command: [sh, -c, "echo second >> /data/order; exit %d"]}}
volumes: {{data: }}
"""
    app = deployed(text % 0)
    (task,) = cluster.tasks(f"{app}/web")
    order = run_in_task(cluster, f"{app}/web", "cat", "/data/order").splitlines()
    assert order == [f"first service {task['address']}", "second", "post hook"]
    assert "init said this" in cluster.fairway("logs", f"{app}/web").stdout
    cluster.fairway("scale", f"{app}/web=0")
    cluster.wait(lambda: not cluster.tasks(f"{app}/web"), "the task is gone")
    cluster.fairway("scale", f"{app}/web=1")
    cluster.wait(lambda: cluster.ready(f"{app}/web", 1, "host-1"), "a task is ready")
    again = run_in_task(cluster, f"{app}/web", "cat", "/data/order").splitlines()
    assert again[3] == "stopping"
    assert [line.split()[0] for line in again[4:]] == ["first", "second", "post"]
    path = cluster.folder / "compose.yaml"
    path.write_text(f"name: {app}\n{text % 3}")
    cluster.fairway("deploy", str(path), "--detach")

    def failed() -> bool:
        tasks = cluster.json("ps", app, "-a")
        return any(
            "init task 2 of 2 (static-web:1) ended with exit code 3" in one["status"]["message"] for one in tasks
        )

    cluster.wait(failed, "the init task that fails has failed its task")


def test_logs_are_kept_as_the_service_says(cluster: Cluster, deployed: Deploy) -> None:
    write = f"i=0; while [ $$i -lt 20000 ]; do i=$$((i+1)); echo $$i {'x' * 30}; done; sleep 100000"
    app = deployed(
        "services:\n"
        f"  small:{BOX}    command: [sh, -c, '{write}']\n"
        "    logging: {driver: json-file, options: {max-size: 40k, max-file: 3, compress: true}}\n"
        f"  quiet:{BOX}    command: [sh, -c, 'echo hidden; sleep 100000']\n"
        "    logging: {driver: none}\n"
    )
    (task,) = cluster.tasks(f"{app}/small")
    host = cluster.node_names()[task["node_id"]]
    folder = f"/var/log/fairway/tasks/{task['meta']['id']}"

    def files() -> list[str]:
        return sorted(name for name in cluster.lab.run_in(host, ["ls", folder]).stdout.split() if ".log" in name)

    last = ("logs", "--tail", "1", f"{app}/small.1")
    cluster.wait(lambda: cluster.fairway(*last).stdout.startswith("20000 "), "all is written")
    cluster.wait(lambda: [name[-3:] for name in files()] == [".gz", ".gz", "log"], "older files are compressed")
    lines = cluster.fairway("logs", f"{app}/small.1").stdout.splitlines()
    assert lines[-1].split()[0] == "20000"
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers == list(range(numbers[0], 20_001))
    assert cluster.fairway("logs", f"{app}/small.1", "--tail", "1000").stdout.splitlines() == lines[-1000:]
    silent = cluster.fairway("logs", f"{app}/quiet")
    assert "hidden" not in silent.stdout
    assert "driver none" in silent.stderr


def test_a_run_has_the_input_and_the_exit_status_of_its_client(cluster: Cluster) -> None:
    shout = cluster.fairway(
        "run",
        "-i",
        "static-web:1",
        "--",
        "sh",
        "-c",
        "tr a-z A-Z; echo done >&2; exit 5",
        text_in="one\ntwo\n",
        ok=False,
    )
    assert (shout.returncode, shout.stdout, shout.stderr) == (5, "ONE\nTWO\n", "done\n")
    many = "".join(f"{number}\n" for number in range(100_000))
    assert cluster.fairway("run", "-i", "static-web:1", "--", "cat", text_in=many).stdout == many
    missing = cluster.fairway("run", "-i", "static-web:1", "--", "no-such-program", ok=False)
    assert missing.returncode in (125, 127)
    refused = cluster.fairway("run", "-it", "static-web:1", "--", "sh", ok=False)
    assert refused.returncode == 2
    assert "no terminal" in refused.stderr
    cluster.wait(lambda: not cluster.json("ls"), "nothing of the runs is left")


def test_a_run_at_a_terminal_ends_with_its_client(cluster: Cluster) -> None:
    terminal = Terminal(cluster, "run", "-it", "static-web:1", "--", "sh")
    try:
        terminal.expect("# ")
        terminal.write("stty size; echo $TERM\n")
        terminal.expect("25 90")
        terminal.expect("xterm")
        terminal.resize(101, 33)
        os.killpg(terminal.child.pid, signal.SIGWINCH)
        terminal.write("sleep 0.2; stty size\n")
        terminal.expect("33 101")
        terminal.write("sh -c 'echo sle\"\"eping; exec sleep 1000'\n")
        terminal.expect("sleeping")
        terminal.write("\x03")
        terminal.write("echo inter''rupted\n")
        terminal.expect("interrupted")
        terminal.write("exit 9\n")
        assert terminal.child.wait(timeout=20) == 9
    finally:
        terminal.close()
    terminal = Terminal(cluster, "run", "-it", "static-web:1", "--", "sh")
    try:
        terminal.expect("# ")
        (app,) = [each["app"]["meta"]["name"] for each in cluster.json("ls")]
        (task,) = cluster.json("ps", app)
        terminal.child.kill()

        def ended() -> Any:
            left = cluster.json("ps", app, "-a")
            return not left or not left[0].get("address")

        cluster.wait(ended, "the run whose client was killed has ended and is cleaned up")
        host = cluster.node_names()[task["node_id"]]
        held = cluster.lab.run_in(host, ["sh", "-c", f"ls -d /run/fairway/io/{task['meta']['id']} || true"]).stdout
        assert held == ""
    finally:
        terminal.close()
        for each in cluster.json("ls"):
            cluster.remove(each["app"]["meta"]["name"])
