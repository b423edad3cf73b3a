"""What keeps containers apart from their host: runtimes by name, and users that are nobody there."""

from __future__ import annotations

from collections.abc import Callable

from tests.system.cluster import Cluster, run_in_task

FIRST = "1900019712"  # containerd.user_ids_first
BOX = """
    image: static-web:1
    init: true
    stop_grace_period: 1s
"""
APP = f"""
services:
  shifted:{BOX}    userns_mode: private
    command: [httpd, -f, -p, '80', -h, /data]
    expose: [80]
    volumes: ['data:/data']
    secrets: [{{source: token, uid: "1000", mode: 0400}}]
  plain:{BOX}    command: [sh, -c, 'umask 077; echo of the volume > /data/index.html; sleep 100000']
    volumes: ['data:/data']
  crun:{BOX}    runtime: crun
    userns_mode: private
    command: [sleep, '100000']
volumes: {{data: }}
secrets: {{token: {{file: ./token}}}}
"""


def test_runtimes_and_user_namespaces(cluster: Cluster, deployed: Callable[[str], str]) -> None:
    (cluster.folder / "token").write_text("hidden")
    app = deployed(APP)

    def shell(service: str, line: str) -> str:
        return run_in_task(cluster, f"{app}/{service}", "sh", "-c", line)

    cluster.wait(lambda: bool(shell("plain", "cat /data/index.html")), "the page is there")
    assert shell("shifted", "cat /proc/self/uid_map").split() == ["0", FIRST, "65536"]
    assert shell("shifted", "cd /data; id -u; stat -c %u . index.html; ls /sys/class/net").split() == [
        *("0", "0", "0"),
        *("eth0", "lo"),
    ]
    secret = cluster.fairway("exec", "--user", "1000", f"{app}/shifted", "--", "cat", "/run/secrets/token")
    assert secret.stdout == "hidden"
    cluster.wait(lambda: shell("plain", "wget -qO- http://shifted/") == "of the volume\n", "it is served")
    source = cluster.folder / "copied"
    source.write_text("a copy")
    cluster.fairway("cp", str(source), f"{app}/shifted:/data/copied")
    assert shell("plain", "stat -c %u /data/copied; cat /data/copied") == shell(
        "shifted", "stat -c %u /data/copied; cat /data/copied"
    )
    (task,) = cluster.tasks(f"{app}/shifted")
    host = cluster.node_names()[task["node_id"]]
    assert cluster.lab.run_in(host, ["stat", "-c", "%u", f"/proc/{task['status']['pid']}"]).stdout.strip() == FIRST
    cluster.wait(
        lambda: not cluster.lab.run_in(host, ["ls", "/run/fairway/containers/staged"]).stdout, "shifted mounts are gone"
    )
    assert shell("crun", "cat /proc/self/uid_map").split() == ["0", FIRST, "65536"]
    assert "runtime crun, user namespace" in cluster.fairway("show", f"{app}/crun").stdout
