"""A host whose disk is full, whose programs are missing, whose ports are taken: said in words, and mended by itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lab import images
from tests.system.cluster import APP, Cluster, Failed

HOST = "host-1"
CHANGES_MAX = 2000
LISTEN = """
import socket, sys, time
print("tries", flush=True)
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try:
        taken.bind(("0.0.0.0", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.001)
taken.listen()
print("taken", flush=True)
time.sleep(1000)
"""
FILL = """
dd if=/dev/zero of=/var/lib/fairway/filler bs=64k
dd if=/dev/zero of=/var/lib/fairway/filler.rest bs=512
true
"""


def file_names(cluster: Cluster) -> list[str]:
    """Of what images and archives leave on the host; containerd's own databases apart."""
    folders = ["/var/lib/fairway/incoming", "/var/lib/containerd/io.containerd.content.v1.content"]
    done = cluster.lab.run_in(HOST, ["find", *folders, "-type", "f"], check=False)
    return sorted(done.stdout.splitlines())


@pytest.fixture
def full_disk(lonely: Cluster) -> Iterator[Cluster]:
    lonely.lab.run_in(HOST, ["sh", "-c", FILL])
    yield lonely
    free(lonely)
    lonely.wait(lambda: ready(lonely), "the host is ready again")


def free(cluster: Cluster) -> None:
    cluster.lab.run_in(HOST, ["rm", "-f", "/var/lib/fairway/filler", "/var/lib/fairway/filler.rest"])


def ready(cluster: Cluster) -> bool:
    return all(view["node"]["state"] == "ready" for view in cluster.json("node", "ls"))


def test_an_image_that_does_not_fit_on_the_disk_is_refused(full_disk: Cluster) -> None:
    before = file_names(full_disk)
    words = full_disk.refused("image", "load", str(images.build("shop-api")))
    # The host may have said meanwhile that its disk is full, for which the state had no room either.
    assert "No space left" in words or "full" in words or "no room" in words
    full_disk.wait(lambda: set(file_names(full_disk)) <= set(before), "nothing of it is left")
    free(full_disk)
    full_disk.wait(lambda: ready(full_disk), "the host is ready")
    full_disk.wait(
        lambda: bool(full_disk.fairway("image", "load", str(images.build("static-web")))), "an image that fits is taken"
    )


def test_a_voter_without_room_stops_says_so_and_comes_back(full_disk: Cluster) -> None:
    words = ""
    for _ in range(CHANGES_MAX):  # the files of the state have some room of their own
        done = full_disk.fairway("token", "create", "-q", ok=False)
        if done.returncode != 0:
            words = done.stderr
            break
    assert words, f"a full disk took {CHANGES_MAX} changes"
    assert "Traceback" not in words
    full_disk.wait(
        lambda: "free some" in full_disk.fairway("token", "ls", ok=False).stderr, "it says what is wrong and what to do"
    )
    free(full_disk)
    full_disk.wait(lambda: full_disk.fairway("token", "create", "-q", ok=False).returncode == 0, "changes are taken")
    full_disk.wait(lambda: ready(full_disk), "the host is ready again")


def log(cluster: Cluster) -> str:
    return cluster.lab.paths.log(HOST, "fairwayd").read_text()


@pytest.mark.parametrize("port, setting", [(7443, "[api] port"), (7444, "7444"), (7445, "7445")])
def test_a_port_that_is_taken_is_said_at_the_start(lonely: Cluster, port: int, setting: str) -> None:
    seen = len(log(lonely))
    lonely.wait(lambda: "fairwayd" in lonely.lab.process_ids(HOST), "fairwayd runs")
    command = ["python3", "-c", LISTEN, str(port)]
    holder = lonely.lab.popen(HOST, command, start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"tries\n"
        lonely.lab.restart_daemon(HOST)
        lonely.wait(lambda: setting in log(lonely)[seen:], "it is said")
        words = log(lonely)[seen:]
        assert "Traceback" not in words
    finally:
        os.killpg(holder.pid, signal.SIGKILL)  # nsenter and what it runs
        holder.communicate()
    lonely.wait(lambda: ready(lonely), "the port is free: the host is ready")


def test_a_second_daemon_on_a_host_is_refused(lonely: Cluster) -> None:
    done = lonely.lab.run_in(HOST, ["fairwayd", "--config", "/etc/fairway/fairwayd.toml"], check=False)
    assert done.returncode == 1
    assert "another fairwayd" in done.stderr
    lonely.wait(lambda: ready(lonely), "the first one goes on")


def test_settings_that_are_wrong_are_named(lonely: Cluster) -> None:
    lonely.lab.run_in(HOST, ["sh", "-c", "printf '[api]\\nprot = 1\\n' > /tmp/wrong.toml"])
    done = lonely.lab.run_in(HOST, ["fairwayd", "--config", "/tmp/wrong.toml"], check=False)
    assert done.returncode == 78
    assert "prot" in done.stderr
    assert "/tmp/wrong.toml" in done.stderr


def test_a_host_that_lacks_a_program_gets_no_tasks_and_says_why(lonely: Cluster) -> None:
    runc = lonely.lab.run_in(HOST, ["sh", "-c", "readlink -f $(command -v runc)"]).stdout.strip()
    lonely.lab.run_in(HOST, ["sh", "-c", f"touch /run/no-program && mount --bind /run/no-program {runc}"])
    try:
        lonely.restart(HOST)
        lonely.wait(lambda: "runc" in lonely.fairway("node", "ls").stdout, "the host says what it lacks")
        path = lonely.folder / "compose.yaml"
        path.write_text(APP.format(replicas=1).replace("static-web:1", "busybox:1"))
        lonely.fairway("deploy", str(path), "--detach")
        lonely.wait(lambda: "runc" in lonely.pending_reasons("site/web"), "the task says what its host lacks")
    finally:
        lonely.lab.run_in(HOST, ["umount", runc])
        lonely.remove("site")
        lonely.restart(HOST)
    lonely.wait(lambda: ready(lonely) and "runc" not in lonely.fairway("node", "ls").stdout, "nothing is missing")


def test_a_command_on_a_host_without_daemon_says_so(lonely: Cluster) -> None:
    with pytest.raises(Failed, match="sock"):
        lonely.json("ls", "--socket", "/run/nowhere.sock")
