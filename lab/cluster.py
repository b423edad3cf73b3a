"""A lab as an object: what tests, benchmarks and the demo use, and `fairway lab` on behalf of a person.

    with Lab.make("shop", hosts=3) as lab:
        lab.run_in("host-1", ["fairway", "status"])
        lab.kill("host-2")

Every method blocks, raises LabError with a sentence for people, and may be called from any process: what
is known of a lab is in its record on disk, and one process at a time changes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import cgroups, formation, switch
from lab import host as hosts_on
from lab import record as records
from lab.layout import (
    CLIENT_COUNT_MAX,
    CLUSTER_POOLS,
    DEFAULT_NAME,
    HOST_COUNT_MAX,
    RUN_ROOT,
    LabError,
    LabPaths,
    both_addresses,
    checked_name,
    client_address,
    host_address,
    lab_paths,
)
from lab.machine import check_machine, check_state_folder
from lab.processes import ProcessMark, alive, kill_and_wait
from lab.record import ClientRecord, HostRecord, LabRecord

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def _build(folder: Path | None) -> str:
    """As the record has it. LabError where it is no source tree."""
    if folder is None:
        return ""
    hosts_on.check_build(folder.absolute())
    return str(folder.absolute())


class Lab:
    """A lab that exists. `Lab.make` makes one, `Lab.open` finds one by name; leaving the `with` block of
    either takes it down."""

    def __init__(self, record: LabRecord, paths: LabPaths) -> None:
        self._record = record
        self._paths = paths
        self.formed: formation.FormedCluster | None = None  # known only to who formed the cluster

    @classmethod
    def make(
        cls,
        name: str = DEFAULT_NAME,
        hosts: int = 3,
        *,
        state_folder: Path | None = None,
        daemon_command: list[str] | None = None,
        build: Path | None = None,
        host_cpu_millis: int = 4000,
        host_memory_bytes: int = 4 << 30,
        ipv6_underlay: bool = False,
        keep_on_failure: bool = False,
        on_failure: Callable[[Lab], None] | None = None,
        progress: Progress = _silent,
    ) -> Lab:
        """Starts `hosts` hosts, named host-1 and so on, and makes one cluster of them.

        When it fails, `on_failure` may look at what there is (its logs, say), and then all is removed,
        unless `keep_on_failure`. `daemon_command` (tests of the lab itself) runs in place of fairwayd, and no cluster
        is formed. `build`: another source tree that the hosts' fairwayd runs from. `ipv6_underlay`: the hosts, which
        have addresses of both families, reach each other by IPv6.
        """
        checked_name(name, "lab name")
        if not 1 <= hosts <= HOST_COUNT_MAX:
            raise LabError(f"a lab has 1 to {HOST_COUNT_MAX} hosts, not {hosts}")
        check_machine()
        paths = lab_paths(name, state_folder)
        check_state_folder(paths.state)
        record = LabRecord(
            name=name,
            state_folder=str(paths.state),
            boot_id=records.boot_id(),
            daemon_command=daemon_command or [],
            host_cpu_millis=host_cpu_millis,
            host_memory_bytes=host_memory_bytes,
            ipv6_underlay=ipv6_underlay,
        )
        with records.locked(name):
            if paths.record.exists():
                raise LabError(
                    f"there is a lab {name!r} already: use another --name, or: fairway lab down --name {name}"
                )
            shutil.rmtree(paths.state, ignore_errors=True)  # of a lab whose record a restart has removed
            paths.run.mkdir(mode=0o755, parents=True)
            records.save(record, paths)
        lab = cls(record, paths)
        try:
            lab._switch_on()
            for _ in range(hosts):
                started = lab.add_host(build)
                progress(f"{started} started at {lab.address(started)}")
            if not daemon_command:
                lab._form_cluster(progress)
        except BaseException as error:
            if on_failure is not None and isinstance(error, LabError):
                on_failure(lab)
            if not keep_on_failure:
                lab.down()
            raise
        return lab

    @classmethod
    def open(cls, name: str = DEFAULT_NAME) -> Lab:
        """Raises LabError where there is no lab of this name."""
        return cls(*records.load(checked_name(name, "lab name")))

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    # ---- what is there ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def paths(self) -> LabPaths:
        return self._paths

    def hosts(self) -> list[str]:
        """Names of all hosts, in the order in which they were made."""
        self._reload()
        return list(self._record.hosts)

    def clients(self) -> list[str]:
        self._reload()
        return list(self._record.clients)

    def address(self, name: str) -> str:
        """Underlay address of a host or client."""
        self._reload()
        if name in self._record.clients:
            return self._record.clients[name].address
        return self._host(name).address

    def is_on(self, host: str) -> bool:
        self._reload()
        init = self._host(host).init
        return init is not None and alive(init)

    def socket(self, host: str) -> Path:
        """The host's fairwayd.sock, as the machine reaches it."""
        return self._paths.socket(host)

    def build(self, host: str) -> Path | None:
        """The source tree that the host's fairwayd runs from; None: this one."""
        self._reload()
        return Path(found) if (found := self._host(host).build) else None

    def process_ids(self, host: str) -> dict[str, int]:
        """ "containerd" and "fairwayd" -> process id on the machine, of those that run."""
        self._reload()
        return hosts_on.process_ids(self._paths, host, self._host(host))

    def partitions(self) -> dict[str, list[str]]:
        """Bridge -> hosts and clients on it; one bridge, "main", where the network is whole."""
        self._reload()
        found: dict[str, list[str]] = {}
        if self._record.switch is not None and alive(self._record.switch):
            for port, bridge in switch.ports(self._record.switch).items():
                found.setdefault(bridge, []).append(port)
        return found

    # ---- running programs ------------------------------------------------------------------------

    def command_in(self, name: str, argv: Sequence[str], environment: dict[str, str] | None = None) -> list[str]:
        """The command line that runs `argv` on a host (all its namespaces) or a client (its network)."""
        self._reload()
        client = self._record.clients.get(name)
        if client is None:
            return hosts_on.enter(self._host(name), name, list(argv), environment)
        if not alive(client.holder):
            raise LabError(f"client {name} is gone; make it again: fairway lab client {name}")
        assignments = [f"{key}={value}" for key, value in (environment or {}).items()]
        return switch.in_network(client.holder, ["env", *assignments, *argv] if assignments else argv)

    def run_in(
        self,
        name: str,
        argv: Sequence[str],
        *,
        timeout_seconds: float = 60.0,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end and captures its output; `options` as subprocess.run."""
        settings: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "stdin": subprocess.DEVNULL,
            **options,
        }
        if "input" in options:
            del settings["stdin"]
        done = subprocess.run(self.command_in(name, argv), timeout=timeout_seconds, **settings)
        if check and done.returncode != 0:
            output = (done.stderr or done.stdout or "").strip()
            raise LabError(f"`{' '.join(argv)}` on {name} ended with {done.returncode}: {output}")
        return done

    def popen(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program; `options` as subprocess.Popen. Who starts it ends it and waits for it."""
        return subprocess.Popen(self.command_in(name, argv), **options)

    # ---- changing it -----------------------------------------------------------------------------

    def add_host(self, build: Path | None = None) -> str:
        """Starts one more host, which is in no cluster; its name is returned. `build`: see `make`."""
        with self._changing() as record:
            number = max((entry.number for entry in record.hosts.values()), default=0) + 1
            if number > HOST_COUNT_MAX:
                raise LabError(f"a lab has at most {HOST_COUNT_MAX} hosts")
            name = f"host-{number}"
            record.hosts[name] = HostRecord(
                number, host_address(number, ipv6=record.ipv6_underlay), build=_build(build)
            )
            hosts_on.prepare_disk(record, self._paths, name)
            record.hosts[name].init = hosts_on.power_on(record, self._paths, name)
            return name

    def remove_host(self, host: str) -> None:
        """Takes a host away for good, with its disk. The cluster is not told: `fairway node rm` does that."""
        with self._changing() as record:
            self._host(host)
            hosts_on.power_off(record, self._paths, host)
            shutil.rmtree(self._paths.host_state(host), ignore_errors=True)
            shutil.rmtree(self._paths.host_run(host), ignore_errors=True)
            del record.hosts[host]

    def kill(self, host: str) -> None:
        """A power cut: daemon, containerd, shims and containers end at once, and /run is lost."""
        with self._changing():
            entry = self._host(host)
            hosts_on.power_off(self._record, self._paths, host)
            entry.init = None

    def start(self, host: str) -> None:
        """Power for a host that is off."""
        with self._changing():
            entry = self._host(host)
            if entry.init is not None and alive(entry.init):
                raise LabError(f"host {host} is on already")
            hosts_on.power_off(self._record, self._paths, host)  # what an unclean end may have left
            entry.init = hosts_on.power_on(self._record, self._paths, host)

    def restart_daemon(self, host: str, program: str = "fairwayd", number: signal.Signals = signal.SIGKILL) -> int:
        """`kill -9` of the host's fairwayd (or containerd) alone; its first process starts it again.

        Returns the id that the process had on the machine.
        """
        ids = self.process_ids(host)
        if program not in ids:
            raise LabError(f"{program} does not run on {host}; its log: fairway lab logs {host}")
        os.kill(ids[program], number)
        return ids[program]

    def change_build(self, host: str, build: Path | None) -> int:
        """Lets the host's fairwayd run from another source tree (None: this one) and restarts it as a package's
        upgrade does: SIGTERM, so that it hands over what it leads. Returns the id that the process had."""
        with self._changing() as record:
            self._host(host).build = _build(build)
            hosts_on.write_setup(record, self._paths, host)
        return self.restart_daemon(host, number=signal.SIGTERM)

    def partition(self, names: Sequence[str]) -> None:
        """Cuts these hosts (or clients) from all others; among each other they still talk."""
        with self._changing() as record:
            for name in names:
                if name not in record.clients:
                    self._host(name)
            record.partition_count += 1
            switch.move_ports(self._switch(), list(names), f"cut{record.partition_count}")

    def heal(self) -> None:
        """Makes the network whole again."""
        with self._changing() as record:
            present = switch.ports(self._switch())
            moved = [port for port, bridge in present.items() if bridge != switch.MAIN_BRIDGE]
            switch.move_ports(self._switch(), moved, switch.MAIN_BRIDGE)
            switch.drop_side_bridges(self._switch())
            record.partition_count = 0

    def client(self, name: str = "client", via: Sequence[str] = ()) -> str:
        """A namespace on the underlay for load: routes to the cluster's pools through the hosts named in
        `via` (spread by flow), all hosts where it is empty. Called again it changes the routes."""
        checked_name(name, "client name")
        with self._changing() as record:
            if name in record.hosts or name == switch.MAIN_BRIDGE:
                raise LabError(f"{name!r} is taken; choose another name for the client")
            entry = record.clients.get(name)
            if entry is None or not alive(entry.holder):
                taken = {other.address for other in record.clients.values()}
                free = [client_address(n) for n in range(1, CLIENT_COUNT_MAX + 1)]
                address = entry.address if entry else next((a for a in free if a not in taken), "")
                if not address:
                    raise LabError(f"a lab has at most {CLIENT_COUNT_MAX} clients")
                entry = ClientRecord(address, switch.hold_namespace())
                record.clients[name] = entry
                switch.connect(self._switch(), entry.holder, name, address, switch.MAIN_BRIDGE)
            hops = [both_addresses(self._host(host).address)[0] for host in via or record.hosts]
            nexthops = f"via {hops[0]}" if len(hops) == 1 else " ".join(f"nexthop via {hop}" for hop in hops)
            switch.configure(entry.holder, [f"route replace {pool} {nexthops}" for pool in CLUSTER_POOLS])
            return name

    def down(self) -> None:
        """Removes everything: processes, namespaces, mounts, control groups, state. Safe to repeat."""
        with records.locked(self.name):
            with contextlib.suppress(LabError):
                self._reload()
            record = self._record
            for entry in record.hosts.values():
                if entry.init is not None:
                    kill_and_wait(entry.init)
            for client in record.clients.values():
                kill_and_wait(client.holder)
            if record.switch is not None:
                kill_and_wait(record.switch)
            left = cgroups.remove(f"/fairway-lab-{record.name}")
            shutil.rmtree(self._paths.state, ignore_errors=True)
            shutil.rmtree(self._paths.run, ignore_errors=True)
            (RUN_ROOT / f"{record.name}.lock").unlink(missing_ok=True)
            for folder in (self._paths.state.parent, RUN_ROOT):
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only where it is empty
        if left or self._paths.state.exists():
            rest = [*left, *([str(self._paths.state)] if self._paths.state.exists() else [])]
            raise LabError(f"lab {record.name!r} is down, but this could not be removed: {', '.join(rest)}")

    # ---- inside ----------------------------------------------------------------------------------

    def _reload(self) -> None:
        self._record, self._paths = records.load(self.name)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[LabRecord]:
        """The record as it is now, for one change; what was done of it is saved also when it fails."""
        with records.locked(self.name):
            self._reload()
            try:
                yield self._record
            finally:
                records.save(self._record, self._paths)

    def _host(self, name: str) -> HostRecord:
        entry = self._record.hosts.get(name)
        if entry is None:
            raise LabError(f"lab {self.name!r} has no host {name!r}; it has: {', '.join(self._record.hosts) or 'none'}")
        return entry

    def _switch(self) -> ProcessMark:
        holder = self._record.switch
        if holder is None or not alive(holder):
            raise LabError(f"lab {self.name!r} has lost its switch; take it down and bring it up again")
        return holder

    def _switch_on(self) -> None:
        with self._changing() as record:
            record.switch = switch.make_switch()

    def _form_cluster(self, progress: Progress) -> None:
        hosts = self.hosts()

        def check() -> None:
            for host in hosts:
                if not self.is_on(host):
                    raise LabError(f"host {host} ended: {hosts_on.tail(self._paths.host_state(host) / 'init.log', 5)}")

        places = [formation.Place(host, self.socket(host), self.address(host)) for host in hosts]
        self.formed = formation.form(self.name, places, check, progress)
        with self._changing() as record:
            record.cluster_formed = True
