"""A host of a lab is a machine: it boots, it can lose its power, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cgroups, commands
from lab.cluster import Lab
from lab.layout import RUN_ROOT, LabError
from lab.main import main
from lab.processes import ProcessMark, alive, mark, namespace_pids
from tests.control_groups import control_groups
from tests.lab.lab_fixtures import (
    fetch,
    mechanical_lab,
    run_container,
    unique_name,
    wait_until,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with mechanical_lab(tmp_path_factory.mktemp("lab"), 3) as made:
        yield made


@pytest.fixture
def whole_lab(lab: Lab) -> Iterator[Lab]:
    """All hosts on and the network whole, before and after."""
    yield lab
    lab.heal()
    for host in lab.hosts():
        if not lab.is_on(host):
            lab.start(host)


def _init_of(lab: Lab, host: str) -> ProcessMark:
    lab.hosts()
    init = lab._record.hosts[host].init
    assert init is not None
    return init


def _all_processes(lab: Lab, host: str) -> list[ProcessMark]:
    """Of the host's own PID namespace, and of its containers' (found by their control groups). Some, such as those
    that serve one request, end meanwhile."""
    pids = set(namespace_pids(_init_of(lab, host)).values())
    for root in cgroups.hierarchies():
        for folder, _, _ in os.walk(root / cgroups.cgroup_parent(lab.name, host).lstrip("/")):
            with contextlib.suppress(OSError):
                pids |= {int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()}
    found = []
    for pid in pids:
        with contextlib.suppress(LabError):
            found.append(mark(pid))
    return found


def test_a_host_has_namespaces_name_and_address_of_its_own(lab: Lab) -> None:
    assert lab.run_in("host-2", ["hostname"]).stdout == "host-2\n"
    assert lab.address("host-2") in lab.run_in("host-2", ["ip", "-br", "address"]).stdout
    init = _init_of(lab, "host-2")
    for kind in ("pid", "mnt", "uts", "ipc", "net"):
        assert Path(f"/proc/{init.pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()


def test_the_machine_itself_gets_no_interface_address_or_route(lab: Lab) -> None:
    for query in (["ip", "address"], ["ip", "route", "show", "table", "all"]):
        assert "10.99.0." not in subprocess.run(query, capture_output=True, text=True, check=True).stdout


def test_what_a_host_writes_below_etc_and_var_stays_on_it(lab: Lab) -> None:
    lab.run_in("host-1", ["sh", "-c", "echo mine > /etc/lab-test; echo mine > /var/lib/lab-test"])
    assert not Path("/etc/lab-test").exists() and not Path("/var/lib/lab-test").exists()
    assert lab.run_in("host-2", ["cat", "/etc/lab-test"], check=False).returncode != 0


def test_a_power_cut_ends_daemons_shims_and_containers_at_once_and_keeps_the_disk(whole_lab: Lab) -> None:
    lab = whole_lab
    run_container(lab, "host-1", "page")
    wait_until(lambda: "hello" in fetch(lab, "host-2", lab.address("host-1")), "the container serves")
    init = _init_of(lab, "host-1")
    card = ["cat", "/sys/class/net/eth0/address"]
    card_before = lab.run_in("host-1", card).stdout
    running = _all_processes(lab, "host-1")
    assert len(running) >= 5  # first process, containerd, stand-in, shim, container
    lab.run_in("host-1", ["sh", "-c", "echo kept > /var/lib/fairway/kept; echo lost > /run/lost"])

    lab.kill("host-1")

    assert not alive(init)
    assert not any(alive(process) for process in running)
    assert not lab.is_on("host-1")
    parent = cgroups.cgroup_parent(lab.name, "host-1")
    assert not [root for root in cgroups.hierarchies() if (root / parent.lstrip("/")).exists()]
    assert fetch(lab, "host-2", lab.address("host-1")) == ""
    with pytest.raises(LabError, match="powered off"):
        lab.run_in("host-1", ["true"])

    lab.start("host-1")
    assert lab.run_in("host-1", ["cat", "/var/lib/fairway/kept"]).stdout == "kept\n"
    assert lab.run_in("host-1", card).stdout == card_before  # who knows it by ARP reaches it at once
    assert lab.run_in("host-1", ["test", "-e", "/run/lost"], check=False).returncode != 0
    wait_until(
        lambda: "page" in lab.run_in("host-1", ["ctr", "container", "ls"], check=False).stdout,
        "containerd has its disk again",
    )
    assert "page" not in lab.run_in("host-1", ["ctr", "task", "ls"]).stdout


def _runs_anew(lab: Lab, program: str, old_id: int) -> bool:
    return lab.process_ids("host-2").get(program, old_id) != old_id


def test_a_killed_daemon_is_started_again_and_the_container_goes_on(whole_lab: Lab) -> None:
    lab = whole_lab
    run_container(lab, "host-2", "steady")
    wait_until(lambda: "hello" in fetch(lab, "host-3", lab.address("host-2")), "the container serves")
    before = lab.process_ids("host-2")
    for program in ("fairwayd", "containerd"):
        lab.restart_daemon("host-2", program)
        wait_until(functools.partial(_runs_anew, lab, program, before[program]), f"{program} runs again")
    assert "hello" in fetch(lab, "host-3", lab.address("host-2"), timeout_seconds=20)
    starts = ["cat", "/var/lib/fairway/starts"]
    wait_until(lambda: len(lab.run_in("host-2", starts).stdout.split()) >= 2, "the new daemon says that it began")


def test_a_partition_cuts_hosts_from_others_and_not_from_each_other(whole_lab: Lab) -> None:
    lab = whole_lab
    lab.client("watcher", via=["host-1"])
    servers = [
        lab.popen(host, ["busybox", "nc", "-ll", "-p", "9", "-e", "echo", host]) for host in ("host-1", "host-2")
    ]

    def answers(origin: str, host: str) -> bool:
        command = ["busybox", "timeout", "1", "busybox", "nc", lab.address(host), "9"]
        return host in lab.run_in(origin, command, check=False).stdout

    try:
        wait_until(lambda: answers("host-3", "host-1") and answers("host-3", "host-2"), "all talk")
        lab.partition(["host-2", "host-3"])
        wait_until(lambda: answers("host-3", "host-2"), "hosts of one side talk")
        assert not answers("host-3", "host-1")
        assert not answers("watcher", "host-2")
        wait_until(lambda: answers("watcher", "host-1"), "hosts and clients of the other side talk")
        lab.heal()
        assert lab.partitions().keys() == {"main"}
        wait_until(lambda: answers("host-3", "host-1") and answers("watcher", "host-2"), "all talk again")
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_a_client_routes_the_clusters_addresses_through_the_hosts_named(lab: Lab) -> None:
    lab.client("loader", via=["host-2"])
    routes = lab.run_in("loader", ["ip", "route"]).stdout
    assert f"10.120.0.0/16 via {lab.address('host-2')}" in routes
    lab.client("loader")
    assert lab.run_in("loader", ["ip", "route"]).stdout.count("nexthop") == 6


def test_nothing_leaves_the_lab(lab: Lab) -> None:
    program = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    answer = lab.run_in("host-1", [sys.executable, "-c", program], check=False)
    assert "unreachable" in answer.stderr.lower() or "No route to host" in answer.stderr


def test_status_and_listing_are_readable(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", lab.name]) == 0
    assert main(["ls"]) == 0
    assert main(["env", "--name", lab.name]) == 0
    output = capsys.readouterr().out
    assert f"export FAIRWAY_SOCKET={lab.socket('host-1')}" in output
    assert lab.name in output and "host-3" in output


def test_mistakes_are_answered_with_what_to_do(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kill", "--name", lab.name, "host-9"]) == 1
    assert "it has: host-1, host-2, host-3" in capsys.readouterr().err
    assert main(["status", "--name", "no-such-lab"]) == 1
    assert "fairway lab up" in capsys.readouterr().err
    assert main(["up", "--name", "Not Possible"]) == 1
    assert "lab name" in capsys.readouterr().err
    assert main(["start", "--name", lab.name, "host-1"]) == 1
    assert "on already" in capsys.readouterr().err
    assert main(["up", "--name", lab.name]) == 1
    assert "already" in capsys.readouterr().err


def test_socket_paths_fit_into_a_socket_address() -> None:
    longest = RUN_ROOT / ("x" * 20) / "host-100" / "fairwayd.sock"
    assert len(os.fsencode(longest)) < 108


def test_log_lines_are_printed_once_and_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\nthr")
    offset = commands._print_new("x", log, 0)
    log.write_text("one\ntwo\nthree\n")
    offset = commands._print_new("x", log, offset)
    assert capsys.readouterr().out.replace("x          | ", "") == "one\ntwo\nthree\n"
    assert commands._print_new("x", log, offset) == offset


def test_a_lab_leaves_nothing_behind_and_two_do_not_disturb_each_other(tmp_path: Path) -> None:
    with mechanical_lab(tmp_path, 1) as first:
        with mechanical_lab(tmp_path, 1) as second:
            assert first.address("host-1") == second.address("host-1")
            run_container(first, "host-1", "same-name")
            run_container(second, "host-1", "same-name")
            assert control_groups(f"fairway-lab-{second.name}")
            running = _all_processes(second, "host-1")
            second_paths = second.paths
        assert len(running) >= 5 and not any(alive(process) for process in running)
        assert not second_paths.run.exists() and not second_paths.state.exists()
        assert not control_groups(f"fairway-lab-{second.name}")
        assert "same-name" in first.run_in("host-1", ["ctr", "task", "ls"]).stdout
    ours = (str(tmp_path), first.name, second.name)  # other labs of this machine come and go meanwhile
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    assert not [line for line in mounts if any(each in line for each in ours)]


def test_a_lab_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique_name()

    def refuse(self: Lab, progress: object) -> None:
        raise LabError("no cluster today")

    monkeypatch.setattr(Lab, "_form_cluster", refuse)
    seen: list[str] = []
    with pytest.raises(LabError, match="no cluster today"):
        Lab.make(name, 1, state_folder=tmp_path / name, on_failure=lambda lab: seen.extend(lab.hosts()))
    assert seen == ["host-1"]
    assert not (RUN_ROOT / name).exists() and not (tmp_path / name).exists()
