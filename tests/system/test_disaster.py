"""Voters that go, leaders that stop, backups, and the two ways out of a disaster, on a lab of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cli import output
from lab.cluster import Lab
from lab.layout import SWITCH_ADDRESS
from proto import control_pb2, control_pb2_grpc
from tests.system.cluster import APP, Cluster, Failed

HOSTS = ("host-1", "host-2", "host-3")
JOIN_TRIES_MAX = 6
SETTLE_SECONDS_MAX = 15.0
SETTINGS = """
[timing]
voter_replace_ms = 5000

[backup]
folder = "/var/lib/fairway/backups"
every_ms = 10000
keep = 2
passphrase_file = "/etc/fairway/passphrase"
"""
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def disaster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three hosts with quick replacement of voters and frequent backups, the site on them."""
    with Lab.make(f"d{uuid.uuid4().hex[:6]}", 3, progress=lambda line: logging.info("%s", line)) as lab:
        made = Cluster(lab, tmp_path_factory.mktemp("disaster"))
        (made.folder / "passphrase").write_text(PASSPHRASE + "\n")
        configure(made)
        made.load_image("static-web")
        made.deploy(APP.format(replicas=3))
        yield made


def configure(cluster: Cluster) -> None:
    """The daemons start again with SETTINGS."""
    for host in HOSTS:
        folder = cluster.lab.paths.host_state(host) / "etc"
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        (folder / "passphrase").chmod(0o600)
        with (folder / "fairwayd.toml").open("a") as file:
            file.write(SETTINGS)
        cluster.lab.restart_daemon(host)
    cluster.wait(lambda: all(is_whole(cluster, host, set(HOSTS)) for host in HOSTS), "three hosts vote")
    cluster.wait(lambda: all(v["node"]["state"] == "ready" for v in cluster.json("node", "ls")), "all are ready")


def status(cluster: Cluster, host: str) -> dict[str, Any]:
    """What `fairway raft status -o json` prints on a host; asked in this process, for it is asked often."""
    with grpc.insecure_channel(
        f"unix:{cluster.lab.socket(host)}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        try:
            reply = control_pb2_grpc.ControlStub(channel).RaftStatus(control_pb2.RaftStatusRequest(), timeout=20.0)
        except grpc.RpcError as error:
            raise Failed(f"raft status on {host}: {error}") from error
    return output.plain(reply)


def member(cluster: Cluster, name: str, seen_by: str) -> dict[str, Any]:
    return next(one for one in status(cluster, seen_by)["members"] if one["name"] == name)


def voters(cluster: Cluster, host: str) -> set[str]:
    return {one["name"] for one in status(cluster, host)["members"] if one["voter"]}


def is_whole(cluster: Cluster, host: str, names: set[str]) -> bool:
    """Whether exactly these hosts vote and all of them are up and follow one leader."""
    found = status(cluster, host)
    up = {one["name"] for one in found["members"] if one["voter"] and one["role"] in ("leader", "follower")}
    return found["quorum"] and up == names


def join(cluster: Cluster, host: str, address: str, token: str, of: str = "host-1") -> None:
    """Makes a host one of the cluster of another. The answer of a join may be lost while the host changes over, and
    each try begins anew: so what came of the one before is waited for first."""

    def settled() -> bool:
        leaders = [cluster.json("status", host=each)["leader_id"] for each in (host, of)]
        return bool(leaders[0]) and leaders[0] == leaders[1]

    said = ""
    for _ in range(JOIN_TRIES_MAX):
        done = cluster.fairway("join", address, "--token", token, host=host, ok=False)
        if done.returncode == 0:
            return
        said = done.stderr
        with contextlib.suppress(Failed):
            cluster.wait(settled, f"{host} is in the cluster", seconds_max=SETTLE_SECONDS_MAX)
            return
    raise Failed(f"{host} has not joined: {said}")


def backup(cluster: Cluster, name: str, host: str = "host-1") -> Path:
    path = cluster.folder / name
    cluster.fairway("backup", "create", str(path), "--passphrase-file", str(cluster.folder / "passphrase"), host=host)
    return path


def test_status_tells_roles_and_what_a_loss_would_mean(disaster: Cluster) -> None:
    disaster.wait(lambda: all(is_whole(disaster, host, set(HOSTS)) for host in HOSTS), "each host sees three vote")
    leader = disaster.leader()
    for host in HOSTS:
        found = status(disaster, host)
        assert found["voters_up"] == found["voter_count"] == 3
        assert {one["role"] for one in found["members"]} == {"leader", "follower"}
        assert member(disaster, leader, host)["role"] == "leader"
        assert all("goes on" in one["if_lost"] for one in found["members"])
    table = disaster.fairway("raft", "status").stdout
    assert "can lose 1 voter more" in table
    assert "IF THIS HOST IS LOST" in table


def test_a_backup_while_writes_go_on_is_whole_and_a_damaged_one_is_refused(disaster: Cluster) -> None:
    stop = threading.Event()
    written: list[str] = []

    def write() -> None:
        while not stop.is_set():
            written.append(disaster.fairway("token", "create", "-q", "--name", f"token-{len(written)}").stdout)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        disaster.wait(lambda: len(written) >= 3, "writes go on")
        before = len(written)
        paths = [backup(disaster, f"writing-{host}.backup", host) for host in HOSTS]
        disaster.wait(lambda: len(written) > before, "writes went on meanwhile")
    finally:
        stop.set()
        writer.join(timeout=60)
    passphrase = str(disaster.folder / "passphrase")
    for path in paths:
        found = disaster.json("backup", "verify", str(path), "--passphrase-file", passphrase)
        assert found["objects"]["join_tokens"] >= 2 + before
        assert found["objects"]["tasks"] >= 3
        assert disaster.json("status")["revision"] >= found["revision"]
    damaged = bytearray(paths[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (disaster.folder / "damaged.backup").write_bytes(damaged)
    refused = disaster.fairway("backup", "verify", str(disaster.folder / "damaged.backup"), ok=False)
    assert refused.returncode == 1
    assert "cannot be used" in refused.stderr
    (disaster.folder / "wrong").write_text("quite another passphrase\n")
    wrong = disaster.fairway(
        "backup", "verify", str(paths[0]), "--passphrase-file", str(disaster.folder / "wrong"), ok=False
    )
    assert wrong.returncode == 1
    assert "passphrase is not the one" in wrong.stderr
    assert all(PASSPHRASE.encode() not in path.read_bytes() for path in paths)


def test_scheduled_backups_come_by_themselves_and_only_the_newest_are_kept(disaster: Cluster) -> None:
    folder = disaster.lab.paths.host_state("host-2") / "fairway" / "backups"
    seen: set[str] = set()

    def made() -> bool:
        seen.update(path.name for path in folder.glob("*.fairway-backup"))
        return len(seen) >= 3

    disaster.wait(made, "three backups were made", 120.0)
    disaster.wait(lambda: len(list(folder.iterdir())) == 2, "two are kept")
    newest = max(folder.glob("*.fairway-backup"))
    passphrase = str(disaster.folder / "passphrase")
    assert disaster.json("backup", "verify", str(newest), "--passphrase-file", passphrase)["objects"]["nodes"] == 3


def test_a_leader_that_stops_hands_over_first(disaster: Cluster) -> None:
    leader = disaster.leader()
    other = next(host for host in HOSTS if host != leader)
    path = disaster.lab.paths.log(leader, "fairwayd")
    seen = path.stat().st_size
    os.kill(disaster.lab.process_ids(leader)["fairwayd"], signal.SIGTERM)
    disaster.wait(lambda: disaster.leader(other) != leader, "another host leads")
    # What a leader says when the election that it asked for is over; nobody waited for its heartbeats in vain.
    disaster.wait(lambda: b"leads now" in path.read_bytes()[seen:], "it has handed over")
    disaster.wait(lambda: is_whole(disaster, other, set(HOSTS)), "all three vote again")


def test_a_drained_leader_hands_over(disaster: Cluster) -> None:
    leader = disaster.leader()
    other = next(host for host in HOSTS if host != leader)
    disaster.fairway("node", "drain", leader, host=other)
    disaster.wait(lambda: disaster.leader(other) != leader, "another host leads")
    activate = ("node", "activate", leader)
    disaster.wait(lambda: disaster.fairway(*activate, host=other, ok=False).returncode == 0, "it is active again")


def test_a_host_may_change_its_address(disaster: Cluster) -> None:
    host = next(name for name in HOSTS if name != disaster.leader())
    old, new = disaster.lab.address(host), "10.99.0.60"
    link = disaster.lab.run_in(host, ["ip", "-br", "address"]).stdout
    name = next(line.split()[0] for line in link.splitlines() if old in line).partition("@")[0]
    change = (
        f"ip address add {new}/24 dev {name}; ip address del {old}/24 dev {name}; "
        f"ip address add {new}/24 dev {name}; ip route replace default via {SWITCH_ADDRESS}"
    )
    disaster.lab.run_in(host, ["sh", "-c", change])
    disaster.lab.restart_daemon(host)
    seen_by = next(name for name in HOSTS if name != host)
    disaster.wait(lambda: member(disaster, host, seen_by)["address"] == f"{new}:7444", "the new address is known")
    disaster.wait(lambda: is_whole(disaster, seen_by, set(HOSTS)), "it votes at its new address")

    def listed() -> set[str]:
        return {view["node"]["address"] for view in disaster.json("node", "ls", host=seen_by)}

    disaster.wait(lambda: new in listed(), "the new address is listed")
    back = change.replace(new, "OLD").replace(old, new).replace("OLD", old)
    disaster.lab.run_in(host, ["sh", "-c", back])
    disaster.lab.restart_daemon(host)
    disaster.wait(lambda: member(disaster, host, seen_by)["address"] == f"{old}:7444", "the old address is back")
    disaster.wait(lambda: is_whole(disaster, seen_by, set(HOSTS)), "all three vote")


def test_a_voter_that_is_gone_is_replaced_and_told_when_it_returns(disaster: Cluster) -> None:
    newcomer = disaster.lab.add_host()
    disaster.wait(lambda: disaster.lab.socket(newcomer).exists(), "the new host is there")
    token = disaster.fairway("token", "create", "-q").stdout.strip()
    address = disaster.lab.address("host-1")
    join(disaster, newcomer, address, token)
    leader = disaster.leader()
    gone = next(host for host in HOSTS if host != leader)
    disaster.lab.kill(gone)
    left = {*HOSTS, newcomer} - {gone}
    disaster.wait(lambda: is_whole(disaster, leader, left), "the new host votes in its place")
    disaster.lab.start(gone)
    disaster.wait(lambda: member(disaster, gone, leader)["role"] == "learner", "it knows that it has no vote")
    assert voters(disaster, leader) == left
    disaster.fairway("node", "drain", newcomer, host=leader)
    disaster.fairway("node", "rm", newcomer, host=leader)
    disaster.wait(lambda: disaster.json("status", host=newcomer)["host"]["phase"] == "removed", "it is told")
    disaster.lab.remove_host(newcomer)
    disaster.wait(lambda: is_whole(disaster, leader, set(HOSTS)), "it has its vote again")


def test_a_survivor_recovers_and_the_others_follow_when_they_return(disaster: Cluster) -> None:
    disaster.wait(lambda: is_whole(disaster, "host-1", set(HOSTS)), "all three vote")
    refused = disaster.fairway("recover", "--yes", ok=False)
    assert refused.returncode == 1
    assert "nothing is lost" in refused.stderr
    leader = disaster.leader()
    survivor = next(host for host in HOSTS if host != leader)
    lost = [host for host in HOSTS if host != survivor]
    revision = disaster.json("status", host=survivor)["revision"]
    disaster.wait(lambda: disaster.local_status(survivor)["revision"] >= revision, "the survivor has heard of all")
    for host in lost:
        disaster.lab.kill(host)
    disaster.wait(lambda: not disaster.has_quorum(survivor), "the survivor knows that it is alone")
    plan = disaster.json("recover", "--plan", host=survivor)
    assert plan["revision"] >= revision
    assert sorted(plan["dropped_nodes"]) == sorted(lost)
    assert not disaster.has_quorum(survivor)
    assert disaster.fairway("recover", host=survivor, ok=False).returncode == 2  # nobody agreed
    disaster.fairway("recover", "--yes", host=survivor)
    disaster.wait(lambda: disaster.ready("web", 3, survivor), "the application runs again")
    assert voters(disaster, survivor) == {survivor}
    disaster.fairway("token", "create", "--name", "after-recovery", host=survivor)
    for host in lost:  # they were a majority of the old cluster
        disaster.lab.start(host)
    disaster.wait(lambda: is_whole(disaster, survivor, set(HOSTS)), "the others vote again")

    def follows(host: str) -> bool:
        tokens = {token["meta"]["name"] for token in disaster.json("token", "ls", host=host)}
        return "after-recovery" in tokens and disaster.leader(host) == disaster.leader(survivor)

    disaster.wait(lambda: all(follows(host) for host in HOSTS), "each host follows what was recovered")


def test_a_backup_is_restored_on_a_fresh_host_and_an_old_one_joins_it(disaster: Cluster) -> None:
    path = backup(disaster, "restore.backup")
    passphrase = str(disaster.folder / "passphrase")
    for host in HOSTS:
        disaster.lab.kill(host)
    fresh = disaster.lab.add_host()
    disaster.wait(
        lambda: disaster.fairway("status", host=fresh, ok=False).returncode == 0, "the fresh host's daemon answers"
    )
    arguments = ("restore", str(path), "--passphrase-file", passphrase)
    plan = disaster.json(*arguments, "--plan", host=fresh)
    assert any("only voter" in sentence for sentence in plan["kept"])
    damaged = path.with_suffix(".cut")
    damaged.write_bytes(path.read_bytes()[:-10])
    refused = disaster.fairway("restore", str(damaged), "--passphrase-file", passphrase, "--yes", host=fresh, ok=False)
    assert refused.returncode == 1
    assert "cut off" in refused.stderr
    disaster.fairway(*arguments, "--yes", host=fresh)
    disaster.wait(lambda: status(disaster, fresh)["quorum"], "the restored cluster works")
    disaster.wait(
        lambda: {app["app"]["meta"]["name"] for app in disaster.json("ls", host=fresh)} == {"site"}, "the app is known"
    )
    disaster.lab.start("host-1")
    refusals: list[str] = []

    def refused_as_a_member() -> bool:  # also by a daemon that is just starting
        refusals.append(disaster.fairway("init", host="host-1", ok=False).stderr)
        return "belongs to" in refusals[-1]

    disaster.wait(refused_as_a_member, "host-1's daemon answers")
    assert all("fairwayd" in each for each in refusals[:-1]), refusals
    token = disaster.fairway("token", "create", "-q", host=fresh).stdout.strip()
    address = disaster.lab.address(fresh)
    join(disaster, "host-1", address, token, fresh)
    disaster.wait(lambda: disaster.ready("web", 3, fresh), "the application runs again, with host-1's image")
    disaster.wait(lambda: disaster.leader("host-1") == disaster.leader(fresh), "both follow one leader")
