"""Capabilities, signals, users and control groups: what a service writes and what the kernel is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import capabilities, cgroup, errors, signals
from runtime.capabilities import ALL, DEFAULT, effective
from runtime.users import ProcessUser, resolve


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(DEFAULT)),
        (["net_admin"], [], {*DEFAULT, "CAP_NET_ADMIN"}),
        ([], ["CAP_CHOWN"], {*DEFAULT} - {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["all"], {"CAP_NET_BIND_SERVICE"}),
        (["ALL"], [], set(ALL)),
        (["ALL"], ["SYS_ADMIN"], {*ALL} - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(ALL)),
        (["CHOWN"], ["CHOWN"], set(DEFAULT)),
    ],
)
def test_capabilities_add_up_as_in_docker(add: list[str], drop: list[str], expected: set[str]) -> None:
    names = effective(add, drop)
    assert set(names) == expected
    assert list(names) == [name for name in ALL if name in expected]


def test_what_the_kernel_does_not_have_is_left_out_or_refused() -> None:
    few = ("CAP_CHOWN", "CAP_KILL")
    assert effective([], [], few) == few
    assert effective(["ALL"], [], few) == few
    with pytest.raises(errors.InvalidRequest, match="SYS_ADMIN"):
        effective(["SYS_ADMIN"], [], few)


@pytest.mark.parametrize("name", ["", "NOPE", "CAP_", "CAP_CAP_KILL"])
def test_unknown_capabilities_are_refused(name: str) -> None:
    for add, drop in (([name], []), ([], [name])):
        with pytest.raises(errors.InvalidRequest, match="capabilities"):
            effective(add, drop)


def test_a_mask_of_capabilities_is_read() -> None:
    assert capabilities.from_mask(0) == ()
    assert set(capabilities.from_mask(0xA80425FB)) == set(DEFAULT)
    assert capabilities.from_mask((1 << 63) - 1) == ALL
    assert len(ALL) == 41


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        (" Kill ", 9),
        ("15", 15),
        (1, 1),
        ("64", 64),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("rtmax", 64),
        ("SIGCLD", 17),
    ],
)
def test_signals_by_name_and_number(text: str | int, number: int) -> None:
    assert signals.number_of(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "SIG", "SIGNOPE", "RTMIN+31", "RTMAX-31", "RTMIN-1", "1.5", "SIG15"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="signal"):
        signals.number_of(text)


PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1000:1001:app:/home/app:/bin/sh
homeless:x:7:7:::/bin/sh
broken:x:abc:1:::/bin/sh
short:x:5
"""
GROUP = "root:x:0:\napp:x:1001:\nextra:x:2000:other,app\nwheel:x:10:root\nnumber:x:no:app\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", ProcessUser(0, 0, (0, 10), "/root")),
        ("root", ProcessUser(0, 0, (0, 10), "/root")),
        ("app", ProcessUser(1000, 1001, (1001, 2000), "/home/app")),
        ("1000", ProcessUser(1000, 1001, (1001, 2000), "/home/app")),
        ("app:wheel", ProcessUser(1000, 10, (10,), "/home/app")),
        ("app:55", ProcessUser(1000, 55, (55,), "/home/app")),
        ("4242", ProcessUser(4242, 0, (0,), "/")),
        ("4242:4343", ProcessUser(4242, 4343, (4343,), "/")),
        ("homeless", ProcessUser(7, 7, (7,), "/")),
    ],
)
def test_users_are_looked_up_in_the_image(text: str, user: ProcessUser) -> None:
    assert resolve(text, PASSWD, GROUP) == user


def test_numbers_need_no_files() -> None:
    assert resolve("", "", "") == ProcessUser(0, 0, (0,), "/")
    assert resolve("12:34", "", "") == ProcessUser(12, 34, (34,), "/")


@pytest.mark.parametrize(
    "text", ["nobody", "broken", "short", "app:none", "4294967296", "1:4294967296", ":", "-1", "app:"]
)
def test_users_that_the_image_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="user"):
        resolve(text, PASSWD, GROUP)


def make_v1(folder: Path) -> None:
    for name in ("cpu", "memory", "pids", "systemd", "unified"):
        (folder / name).mkdir(parents=True)
        (folder / name / "cgroup.procs").touch()
    (folder / "memory" / "memory.memsw.limit_in_bytes").touch()


def test_both_versions_of_control_groups_are_told_apart(tmp_path: Path) -> None:
    make_v1(tmp_path / "v1")
    host = cgroup.detect(tmp_path / "v1")
    assert (host.version, set(host.controllers), host.swap_accounting) == ("v1", {"cpu", "memory", "pids"}, True)
    v2 = tmp_path / "v2"
    v2.mkdir()
    (v2 / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    host = cgroup.detect(v2)
    assert (host.version, host.swap_accounting) == ("v2", False)
    assert set(cgroup.NEEDED_CONTROLLERS) <= set(host.controllers)
    (v2 / "system.slice").mkdir()
    (v2 / "system.slice" / "memory.swap.max").touch()
    assert cgroup.detect(v2).swap_accounting
