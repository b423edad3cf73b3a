"""What is on the disks, and its end by hand: what is asked and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cli.failure import EXIT_FAILED, EXIT_OK
from proto import control_pb2, garbage_pb2
from tests.cli.control_server import ControlServer

Run = Callable[..., Any]
MIB = 1 << 20
HOST = garbage_pb2.HostSpace(
    node="host-1",
    high_percent=85,
    low_percent=75,
    file_systems=[
        garbage_pb2.FileSystemSpace(
            path="/var/lib", holds=["images", "state"], used_bytes=86 * MIB, size_bytes=100 * MIB, used_percent=86
        )
    ],
    kinds=[
        garbage_pb2.SpaceKind(kind="image", count=3, needed_count=1, size_bytes=60 * MIB, reclaimable_bytes=20 * MIB),
        garbage_pb2.SpaceKind(kind="partial"),
        garbage_pb2.SpaceKind(kind="log", count=2, needed_count=2, size_bytes=MIB),
    ],
    items=[garbage_pb2.SpaceItem(kind="image", name="web:1", size_bytes=40 * MIB, needed_by="tasks here need them")],
)


def test_df_shows_each_host_and_what_could_be_freed(server: ControlServer, fairway: Run) -> None:
    server.on("ReadSpace", control_pb2.ReadSpaceReply(hosts=[HOST]))
    ended = fairway("df")
    assert ended.code == EXIT_OK
    assert [line.split("  ")[0] for line in ended.out.splitlines()] == [
        "host-1: /var/lib (images, state): 86M of 100M used (86 %, collected from 85 %), 14M free",
        "KIND",
        "Images",
        "Logs",
    ]
    assert ended.out.splitlines()[2].split() == ["Images", "3", "1", "60M", "20M"]
    ended = fairway("df", "host-1", "-v")
    assert server.asked("ReadSpace")[-1] == control_pb2.ReadSpaceRequest(nodes=["host-1"], items=True)
    assert " ".join(ended.out.splitlines()[-1].split()) == "image web:1 40M - tasks here need them"
    assert json.loads(fairway("df", "-o", "json").out)[0]["file_systems"][0]["used_percent"] == 86


def test_a_host_that_does_not_answer_is_said(server: ControlServer, fairway: Run) -> None:
    server.on("ReadSpace", control_pb2.ReadSpaceReply(hosts=[HOST], silent=["host-2: it is down"]))
    ended = fairway("df")
    assert ended.code == EXIT_FAILED and "host-2: it is down" in ended.err and "host-1" in ended.out


def test_prune_says_what_goes_and_what_did_not(server: ControlServer, fairway: Run) -> None:
    gone = garbage_pb2.SpaceItem(kind="log", name="t1", frees_bytes=2 * MIB)
    done = garbage_pb2.CollectedGarbage(node="host-1", removed=[gone], freed_bytes=2 * MIB)
    server.on("CollectGarbage", control_pb2.CollectGarbageReply(hosts=[done]))
    ended = fairway("prune", "--dry-run", "--logs")
    assert ended.out.splitlines() == ["host-1: would free 2M: log t1", "Would free 2M on 1 host"]
    assert server.asked("CollectGarbage") == [control_pb2.CollectGarbageRequest(plan_only=True, logs=True)]
    done.failures.append("volume v1: busy")
    server.on("CollectGarbage", control_pb2.CollectGarbageReply(hosts=[done]))
    ended = fairway("prune", "host-1", "--volumes")
    assert ended.code == EXIT_FAILED and "volume v1: busy" in ended.err
    assert ended.out.splitlines() == ["host-1: freed 2M: log t1", "Freed 2M on 1 host"]
    assert server.asked("CollectGarbage")[-1] == control_pb2.CollectGarbageRequest(nodes=["host-1"], volumes=True)
    assert json.loads(fairway("prune", "-o", "json").out)[0]["removed"][0]["kind"] == "log"
