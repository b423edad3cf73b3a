"""Descriptors that a daemon gives away come back to the next one, with what is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GIVE = """
import os, sys
from daemon.systemd import DescriptorStore
store = DescriptorStore()
for name in ("task.out", "task.err", "other.out"):
    source, target = os.pipe()
    os.write(target, name.encode())
    store.keep(name, source)
    store.keep(name, source)
store.drop("other.out")
"""
TAKE = """
import os, sys
from daemon.systemd import DescriptorStore
store = DescriptorStore()
print(*sorted(store.kept()))
for name, file in sorted(store._kept.items()):
    print(os.read(file, 100).decode(), os.get_inheritable(file))
store.drop("task.out")
store.keep("task.err", 0)
assert "LISTEN_FDS" not in os.environ and list(store.kept()) == ["task.err"]
"""
# As host_init.py: the store sets a handler of signals, which is a process's own.
INIT = """
import subprocess, sys
from lab.descriptor_store import DescriptorStore
store = DescriptorStore(sys.argv[1])
for script in sys.argv[2:]:
    store.read()
    command, files, environment = store.handed_over([sys.executable, "-c", script])
    child = subprocess.Popen(command, pass_fds=files, env=environment)
    while child.poll() is None:
        store.wait(5.0)
store.read()
print("left:", *store._files)
"""


def test_what_a_daemon_gives_away_the_next_one_has(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INIT, str(tmp_path / "notify"), GIVE, TAKE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    expected = ["task.err task.out", "task.err False", "task.out False", "left: task.err"]
    assert done.stdout.splitlines() == expected


def test_without_a_service_manager_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon.systemd import DescriptorStore

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    store = DescriptorStore()
    store.keep("task.out", 0)
    assert not store.kept()
    store.drop("task.out")
