"""The values that the container runtime takes and gives; all immutable."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proto import objects_pb2

ContainerState = Literal["created", "running", "stopped", "paused"]

# Exit code of a container whose end nobody saw (the host lost power, its shim was killed).
EXIT_CODE_UNKNOWN = 255


@dataclass(frozen=True)
class RuntimeSettings:
    """Where this host's containerd is and where the runtime keeps its own files."""

    socket: Path  # containerd's; at most 107 bytes long
    runc_root: Path  # runc's state; must be this daemon's own, see machine-notes
    log_folder: Path  # logs of tasks: log_folder/<task id>/<number>.log
    run_folder: Path  # FIFOs and other things that need not survive a reboot
    namespace: str = "fairway"
    cgroup_parent: str = "/fairway"
    snapshotter: str = "overlayfs"
    log_size_bytes_max: int = 10 * 1024 * 1024  # of one file
    log_files_max: int = 3  # of one task
    init_path: Path = Path("/usr/bin/tini-static")  # bind-mounted where a container asks for `init`
    parallel_starts_max: int = 8
    user_ids_first: int = 0  # of those with a user namespace (user_namespaces.py); 0: they cannot have any
    runtimes: tuple[str, ...] = ()  # besides runc, that containers may ask for by name (oci_runtimes.py)
    allowed_devices: tuple[Path, ...] = ()  # of the host, that containers may have; a folder stands for all in it
    cdi_folders: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))  # of CDI specifications; the last wins


@dataclass(frozen=True)
class BindMount:
    source: Path
    target: str  # absolute path in the container
    read_only: bool = False
    # (st_dev, st_ino) that the source must still have when it is mounted; None: any.
    identity: tuple[int, int] | None = None


@dataclass(frozen=True)
class TmpfsMount:
    target: str
    size_bytes: int = 0  # 0: 64 MiB
    mode: int = 0  # 0: 01777
    read_only: bool = False


@dataclass(frozen=True)
class Device:
    """A device file to be made in a container; the kernel knows it by kind and numbers, not by its path."""

    target: str  # absolute path in the container
    kind: str  # "c" or "b"
    major: int
    minor: int
    permissions: str  # of "rwm"
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Joins:
    """Namespaces that a container shares with another one that runs; `kinds` of joining.ALL."""

    container_id: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class ContainerRequest:
    """One container to be made. `id` names it in containerd, in the cgroup tree and in the log folder."""

    id: str
    image_digest: str  # of the manifest, "sha256:..."
    spec: objects_pb2.ContainerSpec
    resources: objects_pb2.Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""  # empty: the first 12 characters of the id
    network_namespace: Path | None = None  # None: a new one with nothing but loopback, or with spec.host_network none
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    files: tuple[BindMount, ...] = ()  # single files such as /etc/hosts, mounted last
    shim_group: str = ""  # containers of one group share a shim process; empty: a shim of its own
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()  # "vendor.com/class=name", of this host's CDI specifications
    environment: Mapping[str, str] = field(default_factory=dict)  # below spec.environment, above the image's
    joined: Joins | None = None  # None: it has namespaces of its own


@dataclass(frozen=True)
class ObservedContainer:
    id: str
    labels: Mapping[str, str]
    state: ContainerState
    pid: int = 0  # 0 where nothing runs
    exit_code: int = 0  # 0 to 255; EXIT_CODE_UNKNOWN where nobody saw the end
    out_of_memory: bool = False  # the kernel killed a process of it for want of memory
    started_unix_ms: int = 0
    finished_unix_ms: int = 0


class EventKind(enum.Enum):
    EXIT = "exit"
    OOM = "oom"
    RESYNC = "resync"  # events may have been lost: list again


@dataclass(frozen=True)
class ContainerEvent:
    kind: EventKind
    container_id: str = ""
    exit_code: int = 0
    unix_ms: int = 0


@dataclass(frozen=True)
class ContainerExit:
    exit_code: int
    unix_ms: int
    out_of_memory: bool = False


@dataclass(frozen=True)
class LoadedImage:
    name: str  # normalised: docker.io/library/redis:7
    manifest_digest: str
    config_digest: str
    architecture: str  # OCI words: amd64, arm64
    operating_system: str
    size_bytes: int  # of all blobs as stored


@dataclass(frozen=True)
class ImageConfig:
    """What an image says about running it; `healthcheck` is None where it says nothing."""

    architecture: str
    operating_system: str
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()  # "NAME=value"
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    healthcheck: objects_pb2.Healthcheck | None = None
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
