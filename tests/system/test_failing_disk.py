"""A voter whose disk fails: it stops its part in consensus and says so; its containers and the others go on.

strace lets the kernel answer the daemon's fsync and fdatasync with EIO, which is what a disk that fails does.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from raft.database import WAL_PAGES
from tests.system.cluster import Cluster, steady_load
from tests.system.test_survival import others

DATABASE = "/var/lib/fairway/raft/cluster.sqlite"
FAULT = "cannot be written"
ATTACH_SECONDS_MAX = 60
MARKS = (b"first-mark-in-the-journal", b"second-mark-in-the-journal")


@contextlib.contextmanager
def failing_syncs(cluster: Cluster, host: str) -> Iterator[None]:
    """No fsync or fdatasync of the host's fairwayd succeeds inside the block."""
    pid = cluster.lab.process_ids(host)["fairwayd"]
    calls = "fsync,fdatasync"
    command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", f"trace={calls}"]
    tracer = subprocess.Popen([*command, "-e", f"inject={calls}:error=EIO"], stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        assert "attached" in line, f"strace: {line}"
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets the daemon go
        tracer.wait(ATTACH_SECONDS_MAX)
        if tracer.stderr is not None:
            tracer.stderr.close()


def running(cluster: Cluster, host: str) -> set[str]:
    """Tasks whose containers run on the host."""
    return set(cluster.lab.run_in(host, ["ctr", "-n", "fairway", "tasks", "ls", "-q"]).stdout.split())


def term_and_vote(cluster: Cluster, host: str) -> tuple[int, str]:
    query = "select term || ' ' || coalesce(voted_for, '-') from raft_state"
    command = ["sqlite3", "-readonly", "-cmd", ".timeout 10000", DATABASE, query]
    term, vote = cluster.lab.run_in(host, command).stdout.split()
    return int(term), vote


def place(journal: bytes, mark: bytes) -> int | None:
    """Of the mark within the frames that count (https://sqlite.org/fileformat.html#the_write_ahead_log): what was
    written before the journal began anew has other salts. None also where it is about to begin anew."""
    header_bytes, frame_header_bytes, page_bytes, frames_max = 32, 24, 4096, WAL_PAGES - 60
    for found in re.finditer(re.escape(mark), journal):
        number, _ = divmod(found.start() - header_bytes, frame_header_bytes + page_bytes)
        frame = header_bytes + number * (frame_header_bytes + page_bytes)
        if journal[frame + 8 : frame + 16] == journal[16:24] and number < frames_max:
            return found.start()
    return None


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_voter_whose_disk_fails_stops_and_comes_back_with_a_sound_one(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    left = others(host)[0]
    containers = running(site, host) & {task["meta"]["id"] for task in site.tasks("web")}
    assert containers
    with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
        with failing_syncs(site, host):
            site.fairway("node", "label", host, "disk=failing", host=left, ok=False)
            site.wait(lambda: FAULT in site.local_status(host)["message"], f"{host} says that its disk fails")
            site.wait(lambda: site.has_quorum(left) and site.leader(left) != host, "the others have a leader")
            site.fairway("token", "create", "-q", host=left)  # changes are made without it
            site.wait(lambda: FAULT in site.lab.paths.log(host, "fairwayd").read_text(), "its log says so")

            def stopped() -> bool:
                member = next(m for m in site.json("raft", "status", host=left)["members"] if m["name"] == host)
                return member["role"] == "stopped" and FAULT in member["problem"]

            site.wait(stopped, "the others know")
            assert containers <= running(site, host)
        # The disk is sound again, but nobody knows what of the last writes it holds: only a start reads it anew.
        assert FAULT in site.local_status(host)["message"]
        before = term_and_vote(site, host)
        site.restart(host)
        site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
        result = finish()
    assert containers <= running(site, host)
    site.fairway("node", "label", host, "disk-")
    assert result["failed"] == 0, result["reasons"]
    term, vote = term_and_vote(site, host)
    assert term > before[0] or before[1] in ("-", vote), "a vote that was given was given again"


def test_a_flipped_bit_in_the_journal_is_refused_in_words(site: Cluster) -> None:
    host = others(site.leader())[0]
    left = others(host)[0]
    journal = site.lab.paths.host_state(host) / "fairway/raft/cluster.sqlite-wal"

    def marked() -> bool:
        for mark in MARKS:
            site.fairway("node", "label", host, f"mark={mark.decode()}")
        content = journal.read_bytes()
        return all(place(content, mark) for mark in MARKS)

    site.wait(marked, "both marks are in the journal")
    site.lab.kill(host)
    sound = journal.read_bytes()
    at = place(sound, MARKS[0])
    assert at is not None
    journal.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    site.lab.start(host)
    site.wait(lambda: "damaged" in site.local_status(host)["message"], f"{host} refuses what it has")
    words = site.local_status(host)["message"]
    assert "journal" in words and "restore this host's state or rejoin" in words
    site.fairway("token", "create", "-q", host=left)
    site.lab.kill(host)
    journal.write_bytes(sound)
    site.lab.start(host)
    site.wait(lambda: site.has_quorum(host), f"{host} takes part again")
    site.fairway("node", "label", host, "mark-", host=left)
