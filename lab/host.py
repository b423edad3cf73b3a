"""One host of a lab: its folders and configuration, its start, its power cut."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab import cgroups, switch
from lab.host_init import SETUP_FILE, DaemonSetup, HostSetup
from lab.layout import LabError, LabPaths
from lab.processes import ProcessMark, alive, kill_and_wait, mark, namespace_pids
from lab.record import HostRecord, LabRecord

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
FAIRWAYD_CONFIG = "/etc/fairway/fairwayd.toml"
FAIRWAYD_SOCKET = "/run/fairway/fairwayd.sock"
CONTAINERD_CONFIG = "/etc/fairway/containerd.toml"
_LAUNCH_TIMEOUT_SECONDS = 30

_DISABLED_PLUGINS = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)


def program_folder() -> Path:
    """Where `fairway` and `fairwayd` of this installation are."""
    return Path(sys.executable).parent


def prepare_disk(record: LabRecord, paths: LabPaths, host: str) -> None:
    """Makes the folders that outlive a power cut, and the configuration in them."""
    state = paths.host_state(host)
    for folder in ("fairway", "containerd", "log", "etc"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "etc/fairwayd.toml").write_text(
        f"# Written by the lab; all other settings have their defaults.\n"
        f"[host]\nname = {json.dumps(host)}\n\n"
        f"[containerd]\ncgroup_parent = {json.dumps(cgroups.cgroup_parent(record.name, host))}\n\n"
        f"[resources]\ncpu_millis = {record.host_cpu_millis}\nmemory_bytes = {record.host_memory_bytes}\n"
    )
    disabled = ", ".join(json.dumps(name) for name in _DISABLED_PLUGINS)
    (state / "etc/containerd.toml").write_text(
        f'version = 2\nroot = "/var/lib/containerd"\nstate = "/run/containerd"\n'
        f'disabled_plugins = [{disabled}]\n\n[grpc]\naddress = "{CONTAINERD_SOCKET}"\n\n'
        f'[plugins."io.containerd.internal.v1.opt"]\npath = "/var/lib/containerd/opt"\n'
    )


def power_on(record: LabRecord, paths: LabPaths, host: str) -> ProcessMark:
    """Starts the host's first process and wires it to the switch; its daemons start after that."""
    entry = record.hosts[host]
    if record.switch is None or not alive(record.switch):
        raise LabError(
            f"lab {record.name!r} has lost its switch (was the machine restarted?): "
            f"take it down with `fairway lab down --name {record.name}` and bring it up again"
        )
    state = paths.host_state(host)
    _wipe(paths.host_run(host))
    setup_file = write_setup(record, paths, host)
    with (state / "init.log").open("ab") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "lab.host_init", str(setup_file)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        )
    assert launcher.stdin is not None and launcher.stdout is not None
    with launcher.stdin, launcher.stdout:
        line = launcher.stdout.readline()
        launcher.wait(_LAUNCH_TIMEOUT_SECONDS)
        if not line.strip().isdigit():
            raise LabError(f"host {host} could not be started: {tail(state / 'init.log', 5)}")
        init = mark(int(line))
        try:
            switch.connect(record.switch, init, host, entry.address, switch.MAIN_BRIDGE)
            launcher.stdin.write(b"go\n")
        except BaseException:
            kill_and_wait(init)
            raise
    return init


def write_setup(record: LabRecord, paths: LabPaths, host: str) -> Path:
    """The file that the host's first process reads at its start, and its daemons' commands again at each of theirs."""
    setup_file = paths.host_state(host) / SETUP_FILE
    fresh = setup_file.with_suffix(".new")
    fresh.write_text(_setup(record, paths, host).to_json())
    fresh.replace(setup_file)
    return setup_file


def check_build(folder: Path) -> None:
    """LabError where `folder` is no source tree of Fairway."""
    if not (folder / "daemon/fairwayd.py").is_file():
        raise LabError(f"{folder} is no source tree of Fairway (it has no daemon/fairwayd.py): give the folder of one")


def _setup(record: LabRecord, paths: LabPaths, host: str) -> HostSetup:
    state = paths.host_state(host)
    daemon = record.daemon_command or [str(program_folder() / "fairwayd"), "--config", FAIRWAYD_CONFIG]
    if record.hosts[host].build:  # before the installed packages, which may be an editable installation of this tree
        daemon = ["env", f"PYTHONPATH={record.hosts[host].build}", *daemon]
    return HostSetup(
        hostname=host,
        cgroup_parent=cgroups.cgroup_parent(record.name, host),
        binds={
            "/var/lib/fairway": str(state / "fairway"),
            "/var/lib/containerd": str(state / "containerd"),
            "/var/log/fairway": str(state / "log"),
            "/etc/fairway": str(state / "etc"),
            "/run/fairway": str(paths.host_run(host)),
        },
        daemons=[
            DaemonSetup(
                "containerd",
                ["containerd", "--config", CONTAINERD_CONFIG, "--log-level", "warn"],
                "/var/log/fairway/containerd.log",
                CONTAINERD_SOCKET,
            ),
            DaemonSetup("fairwayd", daemon, "/var/log/fairway/fairwayd.log", stores=True),
        ],
        process_file=str(state / "processes.json"),
    )


def _environment() -> dict[str, str]:
    """A service's environment, not that of the person who typed the command."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    path = f"{program_folder()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "HOME": "/root", "PYTHONUNBUFFERED": "1"}


def power_off(record: LabRecord, paths: LabPaths, host: str) -> None:
    """A power cut: everything on the host ends at once; what was in memory, /run included, is lost."""
    entry = record.hosts[host]
    if entry.init is not None:
        kill_and_wait(entry.init)
    if record.switch is not None and alive(record.switch):
        switch.disconnect(record.switch, host)
    left = cgroups.remove(cgroups.cgroup_parent(record.name, host))
    if left:
        raise LabError(f"host {host} is off, but these control groups could not be removed: {', '.join(left)}")
    _wipe(paths.host_run(host))


def process_ids(paths: LabPaths, host: str, entry: HostRecord) -> dict[str, int]:
    """Daemon name -> its process id on the machine, of those that run now."""
    if entry.init is None or not alive(entry.init):
        return {}
    try:
        inside = json.loads((paths.host_state(host) / "processes.json").read_text())
    except (OSError, ValueError):
        return {}
    outside = namespace_pids(entry.init)
    return {name: outside[pid] for name, pid in inside.items() if pid in outside}


def enter(entry: HostRecord, host: str, argv: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """The command line that runs `argv` on the host, in all its namespaces, from its root folder."""
    if entry.init is None or not alive(entry.init):
        raise LabError(f"host {host} is powered off; start it: fairway lab start {host}")
    variables = {
        "FAIRWAY_SOCKET": FAIRWAYD_SOCKET,
        "PATH": _environment()["PATH"],
        "CONTAINERD_ADDRESS": CONTAINERD_SOCKET,
        **(environment or {}),
    }
    assignments = [f"{name}={value}" for name, value in variables.items()]
    spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
    return ["nsenter", f"--target={entry.init.pid}", *spaces, "--", "env", *assignments, *argv]


def tail(path: Path, lines: int) -> str:
    """The last lines of a file of any size; empty where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - lines * 500))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""


def _wipe(folder: Path) -> None:
    """Empties a folder and makes sure that it is there."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
