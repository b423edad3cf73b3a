"""A voter whose disk fails: it stops its part in consensus and says so; its containers and the others go on.

strace lets the kernel answer the daemon's fsync and fdatasync with EIO, which is what a disk that fails does.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.cluster import Cluster, steady_load
from tests.system.test_survival import others

DATABASE = "/var/lib/fairway/raft/cluster.sqlite"
FAULT = "cannot be written"
ATTACH_SECONDS_MAX = 20


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


def running_pids(cluster: Cluster, host: str) -> list[str]:
    listed = cluster.lab.run_in(host, ["ctr", "-n", "fairway", "tasks", "ls", "-q"]).stdout
    return sorted(listed.split())


def term_and_vote(cluster: Cluster, host: str) -> tuple[int, str]:
    query = "select term || ' ' || coalesce(voted_for, '-') from raft_state"
    term, vote = cluster.lab.run_in(host, ["sqlite3", DATABASE, query]).stdout.split()
    return int(term), vote


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_voter_whose_disk_fails_stops_and_comes_back_with_a_sound_one(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    left = others(host)[0]
    containers = running_pids(site, host)
    assert containers
    with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
        with failing_syncs(site, host):
            site.fairway("node", "label", host, "disk=failing", host=left, ok=False)
            site.wait(lambda: FAULT in site.local_status(host)["message"], f"{host} says that its disk fails")
            site.wait(lambda: site.has_quorum(left) and site.leader(left) != host, "the others have a leader")
            site.fairway("token", "create", "-q", host=left)  # changes are made without it
            assert FAULT in site.lab.paths.log(host, "fairwayd").read_text()
            member = next(m for m in site.json("raft", "status", host=left)["members"] if m["name"] == host)
            assert (member["role"], FAULT in member["problem"]) == ("stopped", True)
            assert running_pids(site, host) == containers
        # The disk is sound again, but nobody knows what of the last writes it holds: only a start reads it anew.
        assert FAULT in site.local_status(host)["message"]
        before = term_and_vote(site, host)
        site.lab.restart_daemon(host)
        site.wait(lambda: site.has_quorum(host), f"{host} takes part again")
        site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
        result = finish()
    assert running_pids(site, host) == containers
    assert result["failed"] == 0, result["reasons"]
    term, vote = term_and_vote(site, host)
    assert term > before[0] or before[1] in ("-", vote), "a vote that was given was given again"


def test_a_flipped_bit_in_the_journal_is_refused_in_words(site: Cluster) -> None:
    host = others(site.leader())[0]
    left = others(host)[0]
    mark = b"a-mark-in-the-journal"
    site.fairway("node", "label", host, f"mark={mark.decode()}")
    site.fairway("node", "label", host, "mark-")
    journal = site.lab.paths.host_state(host) / "fairway/raft/cluster.sqlite-wal"
    site.wait(lambda: mark in journal.read_bytes(), "the mark is in the journal")
    site.fairway("token", "create", "-q", host=left)
    site.lab.kill(host)
    sound = journal.read_bytes()
    at = sound.index(mark)
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
