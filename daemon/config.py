"""The daemon's settings: a TOML file in, frozen dataclasses out; anything unknown is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from daemon import config_checks as check

DEFAULT_PATH = Path("/etc/fairway/fairwayd.toml")


class ConfigError(ValueError):
    """The file cannot be used; the message names file, line (where there is one), key and remedy."""


@dataclass(frozen=True)
class HostConfig:
    name: str = field(default="", metadata=check.node_name_or_empty)  # empty: the machine's host name
    state_folder: Path = field(default=Path("/var/lib/fairway"), metadata=check.absolute_path)
    run_folder: Path = field(default=Path("/run/fairway"), metadata=check.absolute_path)
    # Underlay address that the other hosts reach this one by; empty: found out when it joins.
    advertise_address: str = field(default="", metadata=check.unicast_address_or_empty)


@dataclass(frozen=True)
class ApiConfig:
    listen_address: str = field(default="::", metadata=check.address)  # every host serves it, on IPv4 and IPv6
    port: int = field(default=7443, metadata=check.port)


@dataclass(frozen=True)
class RaftConfig:
    listen_address: str = field(default="::", metadata=check.address)
    port: int = field(default=7444, metadata=check.port)


@dataclass(frozen=True)
class JoinConfig:
    listen_address: str = field(default="::", metadata=check.address)
    port: int = field(default=7445, metadata=check.port)


@dataclass(frozen=True)
class ContainerdConfig:
    socket: Path = field(default=Path("/run/containerd/containerd.sock"), metadata=check.socket_path)
    namespace: str = field(default="fairway", metadata=check.containerd_name)
    runc_root: Path = field(default=Path("/run/fairway-runc"), metadata=check.absolute_path)
    cgroup_parent: str = field(default="/fairway", metadata=check.cgroup_parent)
    snapshotter: str = field(default="overlayfs", metadata=check.containerd_name)
    parallel_starts_max: int = field(default=8, metadata=check.between(1, 64))
    # Besides runc, what tasks may ask for by name: programs in runc's place, and shims as io.containerd.kata.v2.
    runtimes: tuple[str, ...] = field(default=("crun",), metadata=check.runtimes)
    # What users 0 to 65,535 of tasks with a user namespace are on the host: this and the numbers after it; 0: none.
    user_ids_first: int = field(default=1_900_019_712, metadata=check.between(0, 4_294_901_759))


@dataclass(frozen=True)
class NetworkConfig:
    dns_upstreams: tuple[str, ...] = field(default=(), metadata=check.dns_upstreams)  # empty: the host's
    interface_prefix: str = field(default="fw", metadata=check.interface_prefix)
    # Whether tasks may share this host's network.
    host_network_allowed: bool = field(default=False, metadata=check.either)


@dataclass(frozen=True)
class StorageConfig:
    # Where it is not set: STATE_FOLDER/volumes.
    volumes_folder: Path = field(default=Path("/var/lib/fairway/volumes"), metadata=check.absolute_path)
    # Paths of the host that tasks may bind; a path stands for all below it.
    allowed_bind_mounts: tuple[str, ...] = field(default=(), metadata=check.absolute_paths)


@dataclass(frozen=True)
class ImagesConfig:
    # Of images that other hosts fetch from this one, all together; 0: as fast as it goes.
    send_bytes_per_second_max: int = field(default=0, metadata=check.between(0, 1 << 40))


@dataclass(frozen=True)
class LogsConfig:
    folder: Path = field(default=Path("/var/log/fairway/tasks"), metadata=check.absolute_path)
    size_bytes_max: int = field(default=10 << 20, metadata=check.between(64 << 10, 1 << 40))  # one file
    files_max: int = field(default=3, metadata=check.between(1, 100))  # a task


@dataclass(frozen=True)
class ResourcesConfig:
    cpu_millis: int = field(default=0, metadata=check.between(0, 10_000_000))  # 0: the host's
    memory_bytes: int = field(default=0, metadata=check.between(0, 1 << 50))  # 0: the host's
    # Of these, what tasks may reserve: above 100 more than there is, below it something stays for others.
    cpu_percent: int = field(default=100, metadata=check.between(1, 1000))
    memory_percent: int = field(default=100, metadata=check.between(1, 1000))
    # Devices of the host that tasks may have; a folder stands for all in it.
    allowed_devices: tuple[str, ...] = field(default=(), metadata=check.absolute_paths)
    # Where specifications of CDI devices are; a device of a later folder replaces that of an earlier one.
    cdi_folders: tuple[str, ...] = field(default=("/etc/cdi", "/var/run/cdi"), metadata=check.absolute_paths)
    # CDI devices or kinds of them that tasks may have at the same time, where their specification does not say.
    shared_devices: tuple[str, ...] = field(default=(), metadata=check.device_names)


@dataclass(frozen=True)
class TimingConfig:
    heartbeat_ms: int = field(default=1000, metadata=check.between(100, 60_000))
    host_down_ms: int = field(default=3000, metadata=check.between(500, 600_000))
    # The same where the host's kernel answers: time for fairwayd to start again.
    host_restart_ms: int = field(default=10_000, metadata=check.between(500, 3_600_000))
    # Longer than a host may be silent: hosts that are up confirm within milliseconds.
    withdraw_wait_ms_max: int = field(default=12_000, metadata=check.between(0, 60_000))
    raft_heartbeat_ms: int = field(default=100, metadata=check.between(10, 10_000))
    raft_election_ms_min: int = field(default=1000, metadata=check.between(50, 60_000))
    raft_election_ms_max: int = field(default=2000, metadata=check.between(100, 120_000))
    # A voter that is down for so long loses its vote to another host of role voter, where there is one.
    voter_replace_ms: int = field(default=300_000, metadata=check.between(5_000, 7 * 86_400_000))


@dataclass(frozen=True)
class BackupConfig:
    # On a voter: backups go here by themselves; empty: none are made.
    folder: str = field(default="", metadata=check.absolute_path_or_empty)
    every_ms: int = field(default=86_400_000, metadata=check.between(10_000, 31 * 86_400_000))
    keep: int = field(default=7, metadata=check.between(1, 10_000))  # files of this cluster in the folder
    # Its first line seals the cluster key in the backups; only root may be able to read it.
    passphrase_file: str = field(default="", metadata=check.absolute_path_or_empty)


@dataclass(frozen=True)
class GarbageConfig:
    # Used of a file system: from the first on, what nobody needs goes until the second.
    high_percent: int = field(default=85, metadata=check.between(1, 100))
    low_percent: int = field(default=75, metadata=check.between(0, 99))
    # Logs of tasks that have ended; 0: as long as the cluster remembers the task.
    log_keep_days: int = field(default=30, metadata=check.between(0, 36_500))
    # On a voter: pulled images that nothing has used for so long leave the cluster; 0: never.
    image_keep_days: int = field(default=30, metadata=check.between(0, 36_500))


@dataclass(frozen=True)
class Config:
    """Everything that a person can set; the defaults suit a host of its own."""

    host: HostConfig = HostConfig()
    api: ApiConfig = ApiConfig()
    raft: RaftConfig = RaftConfig()
    join: JoinConfig = JoinConfig()
    containerd: ContainerdConfig = ContainerdConfig()
    network: NetworkConfig = NetworkConfig()
    storage: StorageConfig = StorageConfig()
    images: ImagesConfig = ImagesConfig()
    logs: LogsConfig = LogsConfig()
    resources: ResourcesConfig = ResourcesConfig()
    timing: TimingConfig = TimingConfig()
    backup: BackupConfig = BackupConfig()
    garbage: GarbageConfig = GarbageConfig()

    @property
    def socket_path(self) -> Path:
        """The local API's Unix socket."""
        return self.host.run_folder / "fairwayd.sock"

    @property
    def identity_folder(self) -> Path:
        """Keys and certificates of this host (daemon/identity/identity.py)."""
        return self.host.state_folder / "identity"


def load(path: Path | None = None) -> Config:
    """Reads `path`; without one the default file, and where that does not exist all defaults.

    Raises ConfigError: a named file that is missing, no TOML, unknown tables or keys, wrong types or ranges.
    """
    from daemon.config_file import read  # after the classes that it fills

    return read(path)
