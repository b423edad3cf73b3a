"""What the handlers of the API share: this host's part in the cluster, as long as it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.agent.leader_connection import Leader
from daemon.api.forwarding import NO_LEADER
from daemon.config import Config
from daemon.errors import Kind, Refused
from daemon.identity.identity import Identity
from daemon.leader.leadership import Leadership, Leading
from daemon.peers import Peers
from proto import objects_pb2 as objects
from proto.host_pb2_grpc import HostStub
from raft.errors import NotServed
from raft.member import Member
from raft.store import Store

READ_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class VoterContext:
    """A host that takes part in consensus."""

    config: Config
    identity: Identity
    member: Member
    leadership: Leadership
    peers: Peers
    leader: Callable[[], Leader | None]

    @property
    def store(self) -> Store:
        return self.member.store

    def leading(self) -> Leading:
        """The leader's services. Raises Refused where this host does not lead."""
        current = self.leadership.current
        if current is None:
            raise Refused(NO_LEADER, Kind.UNAVAILABLE)
        return current

    async def current_store(self) -> Store:
        """The store with all that was committed before this call. Raises Refused without a majority."""
        try:
            await self.member.read_barrier(READ_TIMEOUT_S)
        except NotServed as error:
            raise Refused(NO_LEADER, Kind.UNAVAILABLE) from error
        return self.store

    def node_name(self, node_id: str) -> str:
        """As people know it; the id where there is no such node."""
        node = self.store.get(objects.Node, node_id)
        return node.meta.name if node is not None else node_id

    def node(self, node_id: str) -> objects.Node:
        """A node that must answer for a task of its own. Raises Refused where it is down or unknown."""
        node = self.store.get(objects.Node, node_id)
        if node is None:
            raise Refused("the task has no host", Kind.NOT_POSSIBLE)
        if node.state != objects.NODE_STATE_READY:
            word = "silent" if node.state == objects.NODE_STATE_SILENT else "down"
            raise Refused(f"host {node.meta.name} is {word}; it cannot be asked", Kind.UNAVAILABLE)
        return node

    def host(self, node: objects.Node) -> HostStub:
        """The host-to-host service of a node."""
        return self.peers.host(node.meta.id, node.address, node.api_port)
