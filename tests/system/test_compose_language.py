"""Compose files on a real cluster: several that make one app, and settings that a process in a container can see."""

from __future__ import annotations

import textwrap
import uuid

from tests.system.cluster import Cluster, run_in_task

FILES = {
    "base.yaml": """
        services:
          shared:
            image: static-web:1
            stop_grace_period: 1s
            shm_size: 32m
            environment: {FROM: base, KEPT: base}
        """,
    "more/compose.yaml": """
        services:
          helper: {image: "${HELPER}", stop_grace_period: 1s}
          unwanted: {image: static-web:1, profiles: [never]}
        """,
    "more/.env": "HELPER=static-web:1\n",
    "compose.yaml": """
        include: [more/compose.yaml]
        services:
          web:
            extends: {service: shared, file: base.yaml}
            hostname: box
            domainname: example.org
            environment: {FROM: first}
            ulimits: {nofile: {soft: 123, hard: 456}}
            sysctls: {net.core.somaxconn: 77}
            group_add: [4242]
            oom_score_adj: 300
            depends_on: {helper: {condition: service_started}}
        """,
    "over.yaml": """
        services:
          web:
            environment: !override {FROM: second}
            ulimits: {core: 0}
        """,
}
SCRIPT = (
    "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/sys/net/core/somaxconn /proc/1/oom_score_adj; hostname -f;"
    "df -k /dev/shm | tail -1 | awk '{print $2}'; echo $FROM-$KEPT; id -G | tr ' ' '\\n' | grep 4242"
)


def test_several_files_make_one_app_and_its_containers_are_as_they_say(cluster: Cluster) -> None:
    folder = cluster.folder / f"language-{uuid.uuid4().hex[:6]}"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    app = folder.name
    files = ("-f", str(folder / "compose.yaml"), "-f", str(folder / "over.yaml"))
    try:
        assert "+ service web" in cluster.fairway("plan", *files).stdout
        cluster.fairway("deploy", *files, "--timeout", "60s")
        assert {task["service"] for task in cluster.json("ps", app)} == {"web", "helper"}
        found = run_in_task(cluster, f"{app}/web", "sh", "-c", SCRIPT).splitlines()
        assert found == ["123", "456", "0", "77", "300", "box.example.org", str(32 << 10), "second-", "4242"]
        assert "unchanged" in cluster.fairway("plan", *files).stdout
        planned = cluster.fairway("plan", *files, "--profile", "never")
        assert "+ service unwanted" in planned.stdout
        (folder / "over.yaml").write_text("services:\n  web:\n    devices: ['/dev/fuse']\n    frob: 1\n")
        refused = cluster.fairway("deploy", *files, ok=False)
        assert refused.returncode == 1
        assert f"{folder}/over.yaml:4: services.web.frob is not supported by Fairway" in refused.stderr
    finally:
        cluster.remove(app)
