"""Every limit and period of consensus in one place, units last in the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raft.features import FEATURE_LEVEL


@dataclass(frozen=True)
class Peer:
    """Where another member is reached: node id, IP address or host name, TCP port."""

    node_id: str
    address: str
    port: int
    log_id: int = field(default=0, compare=False)  # the log of it that has the vote; 0: any


@dataclass(frozen=True)
class RaftSettings:
    """Settings of one member. The periods must agree among the members of a cluster."""

    state_folder: Path  # holds cluster.sqlite; created with mode 0700
    node_id: str
    listen_address: str
    port: int
    bootstrap: bool = False  # first member of a new cluster; without effect where there is state already
    advertise_address: str = ""  # where the others reach this member; empty: where they see it come from
    feature_level: int = FEATURE_LEVEL  # that this build knows; another number only in tests

    heartbeat_ms: int = 100
    election_ms_min: int = 1000
    election_ms_max: int = 2000
    leader_silence_ms_max: int = 1500  # a leader that hears no majority for so long steps down
    commit_notice_ms: int = 10  # followers hear of a commit no later than this after the leader

    transaction_bytes_max: int = 2 * 1024 * 1024
    proposals_waiting_max: int = 4096
    gather_ms_max: int = 2  # requests wait for others no longer, and only while earlier ones are under way
    proposals_turn_max: int = 512  # appended and made durable together
    applied_turn_max: int = 1024  # entries applied in one turn
    append_bytes_max: int = 256 * 1024  # of entries in one message, unless one entry alone is larger
    append_window_bytes: int = 4 * 1024 * 1024  # sent to one peer and not acknowledged yet
    append_window_entries: int = 4096
    log_entries_kept_max: int = 4096  # after compaction; who is further behind gets a snapshot
    log_bytes_kept_max: int = 8 * 1024 * 1024
    state_flush_ms: int = 1000  # applied state reaches the tables of the file no later than this
    state_flush_objects: int = 512
    snapshot_chunk_bytes: int = 512 * 1024
    snapshot_bytes_max: int = 512 * 1024 * 1024
    snapshot_resend_ms: int = 10_000  # without an answer to a chunk the snapshot begins again

    frame_bytes_max: int = 4 * 1024 * 1024
    outbox_bytes_max: int = 16 * 1024 * 1024  # waiting for one peer's connection
    inbox_bytes_max: int = 16 * 1024 * 1024  # arrived and not delivered yet
    connect_ms_max: int = 2000
    reconnect_ms_min: int = 100
    reconnect_ms_max: int = 1000
    dial_idle_ms_max: int = 30_000  # a connection to somebody without a vote closes after so long unused
    connection_silence_ms_max: int = 5000
    connections_max: int = 64
    newcomers_address_max: int = 8  # connections of one address that have shown no certificate yet
    handover_changes_max: int = 50_000  # shipped to the main thread and not taken yet

    def __post_init__(self) -> None:
        if not 3 * self.heartbeat_ms < self.election_ms_min < self.election_ms_max:
            raise ValueError("raft: wanted 3 * heartbeat_ms < election_ms_min < election_ms_max")
        if not self.heartbeat_ms < self.leader_silence_ms_max:
            raise ValueError("raft: wanted heartbeat_ms < leader_silence_ms_max")
        if self.transaction_bytes_max + 65536 > self.frame_bytes_max:
            raise ValueError("raft: a frame must hold the largest transaction and 64 KiB")
