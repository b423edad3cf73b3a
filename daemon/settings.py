"""From the daemon's configuration to the settings of its parts. Pure."""

from __future__ import annotations

from pathlib import Path

from daemon.config import Config
from daemon.identity.identity import Identity
from raft.settings import RaftSettings
from runtime.model import RuntimeSettings


def raft_settings(config: Config, identity: Identity, bootstrap: bool, address: str) -> RaftSettings:
    """`bootstrap`: this host begins a new cluster. `address`: by which the others reach it now."""
    return RaftSettings(
        state_folder=config.host.state_folder / "raft",
        node_id=identity.node_id,
        listen_address=config.raft.listen_address,
        port=config.raft.port,
        bootstrap=bootstrap,
        advertise_address=address,
        heartbeat_ms=config.timing.raft_heartbeat_ms,
        election_ms_min=config.timing.raft_election_ms_min,
        election_ms_max=config.timing.raft_election_ms_max,
    )


def runtime_settings(config: Config) -> RuntimeSettings:
    """Where containerd and the runtime's files are."""
    return RuntimeSettings(
        socket=config.containerd.socket,
        runc_root=config.containerd.runc_root,
        log_folder=config.logs.folder,
        run_folder=config.host.run_folder / "containers",
        namespace=config.containerd.namespace,
        cgroup_parent=config.containerd.cgroup_parent,
        snapshotter=config.containerd.snapshotter,
        runtimes=config.containerd.runtimes,
        user_ids_first=config.containerd.user_ids_first,
        parallel_starts_max=config.containerd.parallel_starts_max,
        log_size_bytes_max=config.logs.size_bytes_max,
        log_files_max=config.logs.files_max,
        allowed_devices=tuple(map(Path, config.resources.allowed_devices)),
        cdi_folders=tuple(map(Path, config.resources.cdi_folders)),
    )
