"""The first process of a lab host: sets its namespaces up, starts its daemons, and starts them again.

`python -m lab.host_init SETUP.json` leaves a process that is PID 1 of new PID, mount, UTS, IPC and network
namespaces, prints its id on the machine once the host's folders and name stand, and ends. The new process
waits for a line on its standard input (the network is wired meanwhile), then starts the daemons one after
another and, as systemd would with Restart=always, each again when it ends. To the host SIGKILL of this process
is a power cut: the kernel ends every process of the namespace at once. Only the standard library is used: this
process stays small.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab import cgroups, system_calls
from lab.descriptor_store import DescriptorStore

# Of control groups v2 beside v1: nobody in a lab uses them, and crun runs nothing where it sees any.
_LEFT_CONTROLLERS = Path("/sys/fs/cgroup/unified/cgroup.controllers")
RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 5.0
STEADY_SECONDS = 10.0  # a run longer than this makes the next restart quick again
READY_SECONDS_MAX = 15.0
LOG_BYTES_MAX = 64 << 20
LOG_CHECK_SECONDS = 10.0
NOTIFY_SOCKET = "/run/.notify"
SETUP_FILE = "setup.json"  # beside the process file
_NEW = (
    system_calls.NEW_MOUNT | system_calls.NEW_UTS | system_calls.NEW_IPC | system_calls.NEW_PID | system_calls.NEW_NET
)
_OVERLAID = ("/etc", "/var/lib", "/var/log")  # writes there stay in memory and end with the host


@dataclass(frozen=True)
class DaemonSetup:
    """One program that the host keeps running."""

    name: str
    command: list[str]
    log: str  # on the host
    ready_path: str = ""  # the next daemon starts when this exists; empty: at once
    stores: bool = False  # its descriptors are held while it is away


@dataclass(frozen=True)
class HostSetup:
    """What the new process needs to know; kept as JSON."""

    hostname: str
    cgroup_parent: str
    binds: dict[str, str]  # path on the host -> folder on the machine
    daemons: list[DaemonSetup]
    process_file: str  # on the machine: daemon name -> process id inside

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> HostSetup:
        value = json.loads(text)
        value["daemons"] = [DaemonSetup(**daemon) for daemon in value["daemons"]]
        return HostSetup(**value)


@dataclass
class _Daemon:
    setup: DaemonSetup
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    delay_seconds: float = RESTART_SECONDS_MIN
    log_path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log_path = Path(self.setup.log)


def main() -> None:
    setup = HostSetup.from_json(Path(sys.argv[1]).read_text())
    cgroups.join(setup.cgroup_parent, os.getpid())
    system_calls.unshare(_NEW)
    standing, stands = os.pipe()
    child = os.fork()
    if child:
        os.close(stands)
        if os.read(standing, 1):  # nothing where it has failed: its log says why
            print(child, flush=True)
        os._exit(0)
    os.close(standing)
    os.setsid()
    with contextlib.suppress(BrokenPipeError):
        # From here on errors are read in the host's own log.
        _log_to(Path(setup.process_file).with_name("init.log"))
    _mount_all(setup)
    socket.sethostname(setup.hostname)
    os.write(stands, b".")
    os.close(stands)
    if not sys.stdin.readline():
        return  # whoever started us has gone: so do we, and with us the namespaces
    _serve(setup)


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _mount_all(setup: HostSetup) -> None:
    """A private view: own /proc, empty /run, in-memory layers over what daemons write, the host's folders."""
    system_calls.mount("none", "/", flags=system_calls.MOUNT_RECURSIVE | system_calls.MOUNT_PRIVATE)
    # Opened before anything is laid over them.
    sources = {path: os.open(folder, os.O_PATH | os.O_DIRECTORY) for path, folder in setup.binds.items()}
    process_folder = os.open(Path(setup.process_file).parent, os.O_PATH | os.O_DIRECTORY)
    system_calls.mount(
        "proc",
        "/proc",
        "proc",
        system_calls.MOUNT_NO_SUID | system_calls.MOUNT_NO_DEVICES | system_calls.MOUNT_NO_EXECUTION,
    )
    system_calls.mount("tmpfs", "/run", "tmpfs", system_calls.MOUNT_NO_SUID, "mode=755,size=512m")
    for number, lower in enumerate(_OVERLAID):
        layers = Path(f"/run/.layers/{number}")
        for folder in ("upper", "work"):
            (layers / folder).mkdir(parents=True)
        options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
        system_calls.mount("overlay", lower, "overlay", 0, options)
    Path("/etc/hostname").write_text(setup.hostname + "\n")
    for path, source in sources.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        system_calls.mount(f"/proc/self/fd/{source}", path, flags=system_calls.MOUNT_BIND)
        os.close(source)
    if _LEFT_CONTROLLERS.exists():
        system_calls.mount("/dev/null", str(_LEFT_CONTROLLERS), flags=system_calls.MOUNT_BIND)
    Path("/run/.lab").mkdir()
    system_calls.mount(f"/proc/self/fd/{process_folder}", "/run/.lab", flags=system_calls.MOUNT_BIND)
    os.close(process_folder)


def _serve(setup: HostSetup) -> None:
    """Keeps the daemons running until this process is killed."""
    store = DescriptorStore(NOTIFY_SOCKET)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    process_file = Path("/run/.lab") / Path(setup.process_file).name
    daemons = [_Daemon(daemon) for daemon in setup.daemons]
    checked_logs = time.monotonic()
    while True:
        now = time.monotonic()
        for daemon in daemons:
            if daemon.process is None and now >= daemon.start_at:
                _take_command(daemon, process_file.with_name(SETUP_FILE))
                _start(daemon, store)
                _note(process_file, daemons)
                if daemon.setup.ready_path:
                    _wait_ready(daemon, daemons, store)
        _reap(daemons)
        if now - checked_logs > LOG_CHECK_SECONDS:
            checked_logs = now
            for daemon in daemons:
                _bound_log(daemon.log_path)
        waits = [daemon.start_at - time.monotonic() for daemon in daemons if daemon.process is None]
        store.wait(max(0.0, min([*waits, LOG_CHECK_SECONDS])))


def _take_command(daemon: _Daemon, setup_file: Path) -> None:
    """The command as the file has it now: the lab may want the daemon to run from another source tree."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        for setup in HostSetup.from_json(setup_file.read_text()).daemons:
            if setup.name == daemon.setup.name:
                daemon.setup = setup


def _start(daemon: _Daemon, store: DescriptorStore) -> None:
    store.read()  # what the last one left
    command = daemon.setup.command
    files: list[int] = []
    environment: dict[str, str] | None = None
    if daemon.setup.stores:
        command, files, environment = store.handed_over(command)
    daemon.started = time.monotonic()
    daemon.log_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with daemon.log_path.open("ab") as log:
            daemon.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=files,
                env=environment,
            )
    except OSError as error:
        with daemon.log_path.open("a") as text:
            text.write(f"lab: {daemon.setup.command[0]} could not be started: {error}\n")
        _ended(daemon)


def _ended(daemon: _Daemon) -> None:
    """Plans the next start: quick after a steady run, later and later after quick ends."""
    daemon.process = None
    now = time.monotonic()
    if now - daemon.started > STEADY_SECONDS:
        daemon.delay_seconds = RESTART_SECONDS_MIN
    daemon.start_at = now + daemon.delay_seconds
    daemon.delay_seconds = min(daemon.delay_seconds * 2, RESTART_SECONDS_MAX)


def _reap(daemons: list[_Daemon]) -> None:
    """Collects every child that has ended: daemons, and orphans of theirs (shims are such)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for daemon in daemons:
            if daemon.process is not None and daemon.process.pid == pid:
                daemon.process.returncode = os.waitstatus_to_exitcode(status)
                print(f"{daemon.setup.name} ended with {daemon.process.returncode}", flush=True)
                _ended(daemon)


def _wait_ready(daemon: _Daemon, all_daemons: list[_Daemon], store: DescriptorStore) -> None:
    """Waits until the daemon's file is there, it has ended, or the time limit has passed."""
    path = Path(daemon.setup.ready_path)
    deadline = time.monotonic() + READY_SECONDS_MAX
    while daemon.process is not None and not path.exists() and time.monotonic() < deadline:
        store.wait(0.01)
        _reap(all_daemons)


def _note(process_file: Path, daemons: list[_Daemon]) -> None:
    """Writes which daemon is which process (ids inside the namespace)."""
    ids = {daemon.setup.name: daemon.process.pid for daemon in daemons if daemon.process is not None}
    fresh = process_file.with_suffix(".new")
    fresh.write_text(json.dumps(ids))
    fresh.replace(process_file)


def _bound_log(path: Path) -> None:
    """Keeps the log and one older copy, each of at most LOG_BYTES_MAX and what 10 s add."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


if __name__ == "__main__":
    main()
