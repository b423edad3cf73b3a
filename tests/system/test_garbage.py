"""What nobody needs on a host's disks: shown, removed by hand, and a disk that stays full is said."""

from __future__ import annotations

from typing import Any

from tests.system.cluster import Cluster

HOST = "host-1"
FILLER = "/var/lib/fairway/filler"
FILL = f"set -- $(df -B1 --output=used,avail /var/lib/fairway | tail -1); fallocate -l $((($1+$2)*88/100-$1)) {FILLER}"
APP = """
name: waste
services:
  tool:
    image: busybox:1
    command: sh -c "echo waste; sleep 1000"
    stop_grace_period: 0s
"""


def kinds(cluster: Cluster) -> dict[str, Any]:
    (host,) = cluster.json("df", HOST)
    return {kind["kind"]: kind for kind in host["kinds"]}


def planned(cluster: Cluster) -> dict[str, Any]:
    (found,) = cluster.json("prune", HOST, "--dry-run")
    return dict(found)


def conditions(cluster: Cluster) -> list[str]:
    return [each["kind"] for view in cluster.json("node", "ls") for each in view["node"]["conditions"]]


def test_what_nobody_needs_is_shown_and_goes_and_a_disk_that_stays_full_is_said(lonely: Cluster) -> None:
    lonely.deploy(APP)
    (task,) = lonely.tasks("waste/tool")
    needs = ("unpacked", "log")
    lonely.wait(lambda: all(kinds(lonely)[kind]["needed_count"] >= 1 for kind in needs), "its needs are counted")
    seen = kinds(lonely)
    busy = lonely.json("prune", "--logs", "--volumes")[0]["removed"]
    assert task["meta"]["id"] not in {item["id"] for item in busy}
    assert kinds(lonely)["unpacked"]["needed_count"] == seen["unpacked"]["needed_count"]
    assert lonely.tasks("waste/tool")[0]["meta"]["id"] == task["meta"]["id"]

    try:
        lonely.lab.run_in(HOST, ["sh", "-c", FILL])
        lonely.wait(lambda: "disk use" in conditions(lonely), "a disk above its high watermark is said")
    finally:
        lonely.lab.run_in(HOST, ["rm", "-f", FILLER])
    lonely.remove("waste")
    lonely.wait(lambda: planned(lonely)["removed"], "what the task was made of is not needed any more")
    would = planned(lonely)
    assert [item["kind"] for item in would["removed"]] == ["unpacked"]
    assert would["freed_bytes"] > 0 and kinds(lonely)["unpacked"]["count"]
    removed = lonely.json("prune")[0]["removed"]
    assert [(item["kind"], item["id"]) for item in removed] == [(item["kind"], item["id"]) for item in would["removed"]]
    assert kinds(lonely)["unpacked"]["count"] == 0
    assert kinds(lonely)["image"]["count"] >= 1
    lonely.wait(lambda: "disk use" not in conditions(lonely), "there is room again")
