"""Everything that runs while this host belongs to a cluster."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from daemon.agent.agent import Agent
from daemon.agent.condition_agent import ConditionAgent
from daemon.agent.debug_containers import DebugContainers
from daemon.agent.description_agent import DescriptionAgent
from daemon.agent.device_agent import DeviceAgent
from daemon.agent.file_agent import FileAgent
from daemon.agent.floating_agent import FloatingAgent
from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.leader_connection import Leader, LeaderConnection
from daemon.agent.moved_leader import MovedLeader
from daemon.agent.network_agent import NetworkAgent
from daemon.agent.reports import Reports
from daemon.agent.task_host import ContainerHost
from daemon.agent.volume_agent import VolumeAgent
from daemon.api.cluster_context import VoterContext
from daemon.api.event_log import EventLog
from daemon.api.forwarding import Forwarder
from daemon.api.host_api import HostServices
from daemon.api.task_file_contents import read_contents
from daemon.backup.schedule import ScheduledBackups
from daemon.config import Config
from daemon.doctor.host_doctor import HostDoctor
from daemon.doctor.subject import Subject
from daemon.garbage.collector import Collector
from daemon.garbage.room import Room
from daemon.identity.identity import Identity, KnownNode
from daemon.identity.own_address import present_address
from daemon.identity.renewal import Renewal
from daemon.identity.tls import NodeTls
from daemon.joining.join_client import known_node
from daemon.joining.join_registration import Registration
from daemon.joining.join_server import JoinServer, LeaderPlace
from daemon.known_peers import believe_session, keep_peers_known
from daemon.leader.leadership import Leadership, now_unix_ms
from daemon.own_moves import follow_own_address, tell_hosts
from daemon.peers import Peers
from daemon.pulling.blob_sending import BlobSending
from daemon.pulling.pulls import ImagePulls
from daemon.pulling.wanted_pulls import WantedPulls
from daemon.settings import raft_settings, runtime_settings
from daemon.systemd import DescriptorStore
from net.addresses import tunnel_mac
from net.network import Network
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2 import ReadTaskFilesReply, RenewCertificateReply, RenewCertificateRequest
from proto.store_pb2 import Transaction
from raft.member import Member
from raft.settings import Peer
from runtime.runtime import Runtime
from storage.volumes import LocalVolumes

logger = logging.getLogger(__name__)

REMEMBER_INTERVAL_S = 30.0
FIRST_LEADERSHIP_S_MAX = 30.0
SILENCE_HEARTBEATS_MAX = 3


@dataclass(frozen=True)
class Parts:
    """What the APIs need of a host in a cluster."""

    config: Config
    identity: Identity
    runtime: Runtime
    agent: Agent
    images: ImageAgent
    pulls: ImagePulls | None  # None on a host without a part in consensus
    connection: LeaderConnection
    forwarder: Forwarder
    events: EventLog
    voter: VoterContext | None
    host_services: HostServices
    renewal: Renewal
    backups: ScheduledBackups | None  # None on a host without a part in consensus
    doctor: HostDoctor
    garbage: Collector


class ClusterHost:
    """One membership of this host in a cluster, from start or joining to stop or removal."""

    def __init__(self, config: Config, identity: Identity, descriptors: DescriptorStore) -> None:
        self.parts: Parts | None = None
        self._config = config
        self._descriptors = descriptors
        self._identity = identity
        self._tls = NodeTls(identity)
        self._view = HostView()
        self._moved_leader = MovedLeader()

    async def run(
        self, first: Transaction | None, *, task_status: trio.TaskStatus[Parts] = trio.TASK_STATUS_IGNORED
    ) -> bool:
        """Runs until cancelled, or until the cluster has removed this host: then returns True, with all
        tasks stopped. `first`: the transaction that begins a new cluster. Raises Refused, MemberFault."""
        config, identity = self._config, self._identity
        async with trio.open_nursery() as nursery:
            peers = Peers(self._tls.channel_credentials)
            view, reports = self._view, Reports()
            voter = await self._start_member(nursery, peers, first) if identity.membership.voter else None
            if first is not None:
                identity.save()
            runtime = Runtime(runtime_settings(config), self._descriptors)
            network = Network(
                config.host.state_folder,
                config.host.run_folder,
                config.network.interface_prefix,
                config.network.dns_upstreams or None,
            )
            await nursery.start(runtime.run)
            await nursery.start(network.run)
            volumes = LocalVolumes(config.storage.volumes_folder, tuple(map(Path, config.storage.allowed_bind_mounts)))
            self.parts = parts = self._assemble(runtime, network, volumes, peers, view, reports, voter)
            host = ContainerHost(
                runtime,
                network,
                volumes,
                parts.images,
                self._file_agent(peers, view, voter),
                view,
                config.host.run_folder,
                parts.agent.withdrawn,
                parts.agent.withdrawals_changed,
                parts.host_services.attachments,
                config.network.host_network_allowed,
            )
            nursery.start_soon(parts.agent.run, host)
            if parts.host_services.debugging is not None:
                nursery.start_soon(parts.host_services.debugging.run)
            devices = DeviceAgent(runtime.cdi, config.resources.shared_devices, reports)
            await devices.look()  # before the host is described: it would be one without devices for a while
            nursery.start_soon(devices.run)
            nursery.start_soon(ConditionAgent(config, lambda: runtime.error, reports).run)
            nursery.start_soon(DescriptionAgent(self._config, runtime, reports).run)
            nursery.start_soon(parts.renewal.run)
            nursery.start_soon(parts.doctor.run)
            nursery.start_soon(parts.garbage.run)
            moved = partial(self._moved, peers, voter)
            nursery.start_soon(follow_own_address, self._address, network.wait_touched, moved)
            nursery.start_soon(self._remember_nodes, view, voter.member if voter is not None else None)
            if voter is not None:
                nursery.start_soon(parts.events.run, voter.store)
                assert parts.backups is not None
                nursery.start_soon(parts.backups.run)
                assert parts.pulls is not None
                nursery.start_soon(WantedPulls(voter, parts.pulls).run)
                await nursery.start(self._serve_joins, voter)
            task_status.started(parts)
            await parts.agent.removed_from_cluster.wait()
            logger.warning("this host was removed from the cluster; stopping its tasks")
            await parts.agent.stop_all()
            await network.remove()
            nursery.cancel_scope.cancel()
        return True

    async def _start_member(self, nursery: trio.Nursery, peers: Peers, first: Transaction | None) -> VoterContext:
        config, identity = self._config, self._identity
        known = [
            Peer(node.node_id, node.address, node.raft_port)
            for node in identity.membership.nodes
            if node.node_id != identity.node_id
        ]
        member = Member(raft_settings(config, identity, first is not None, self._address()), known, self._tls)
        await nursery.start(member.run)
        if first is not None:
            with trio.fail_after(FIRST_LEADERSHIP_S_MAX):
                async for status in member.role_changes():
                    if status.role == "leader":
                        break
                await member.propose(first, FIRST_LEADERSHIP_S_MAX)
        leadership = Leadership(member, identity.node_id, config.timing, config.garbage.image_keep_days)
        nursery.start_soon(leadership.run)
        if first is not None:  # hosts that join at once find a leader in office
            with trio.fail_after(FIRST_LEADERSHIP_S_MAX):
                while leadership.current is None:
                    await leadership.wait_changed()
        nursery.start_soon(keep_peers_known, member)

        def leader() -> Leader | None:
            return self._leader_of(member)

        return VoterContext(config, identity, member, leadership, peers, leader)

    def _leader_of(self, member: Member) -> Leader | None:
        status = member.status()
        if status.leader_id is None or not status.quorum:
            return None
        node = member.store.get(objects.Node, status.leader_id)
        if node is not None:
            # The store learns a new address of ours from our own report.
            address = self._address() if node.meta.id == self._identity.node_id else node.address
            return Leader(node.meta.id, address, node.api_port)
        for known in self._identity.membership.nodes:
            if known.node_id == status.leader_id:
                return Leader(known.node_id, known.address, known.api_port)
        return None

    def _assemble(
        self,
        runtime: Runtime,
        network: Network,
        volumes: LocalVolumes,
        peers: Peers,
        view: HostView,
        reports: Reports,
        voter: VoterContext | None,
    ) -> Parts:
        config, identity = self._config, self._identity
        room = Room(config.garbage.high_percent, config.garbage.low_percent)
        images = ImageAgent(runtime.images, runtime.spaces, view, peers, reports, room, identity.node_id)

        network_agent = NetworkAgent(network, identity.node_id, view, reports)
        agent = Agent(
            runtime,
            network_agent,
            images,
            VolumeAgent(volumes, view, reports),
            FloatingAgent(view, identity.node_id, config.timing.host_down_ms / 1000),
            view,
            reports,
            config.host.state_folder / "host-state.pb",
            self._address,
            now_unix_ms,
            config.timing.withdraw_wait_ms_max,
        )

        def known_leader() -> Leader | None:
            return self._moved_leader.better(voter.leader() if voter is not None else None)

        async def leader_changed() -> None:
            async with trio.open_nursery() as nursery:
                if voter is not None:
                    nursery.start_soon(_then_cancel, voter.leadership.wait_changed, nursery.cancel_scope)
                await self._moved_leader.wait_changed()
                nursery.cancel_scope.cancel()

        def leader_moved(place: Leader) -> None:
            # From nobody else, or any host could take the place of the leader.
            if connection.leader is not None and connection.leader.node_id == place.node_id:
                self._moved_leader.note(place)

        connection = LeaderConnection(
            agent,
            peers,
            known_leader,
            lambda: self._candidates(view),
            leader_changed,
            config.timing.heartbeat_ms,
            SILENCE_HEARTBEATS_MAX * config.timing.heartbeat_ms,
        )

        def leader() -> Leader | None:
            return known_leader() or (connection.leader if connection.connected else None)

        forwarder = Forwarder(
            lambda: voter is not None and voter.leadership.current is not None,
            leader,
            lambda: voter.member.status().error if voter is not None else "",
            peers,
            identity.node_id,
        )

        async def ask_renewal(request: RenewCertificateRequest) -> RenewCertificateReply:
            to = leader()
            if to is None:
                raise ConnectionError("no leader is known")
            return await call(peers.host(to.node_id, to.address, to.api_port).RenewCertificate(request))  # type: ignore[arg-type]

        renewal = Renewal(identity, ask_renewal, now_unix_ms, random.SystemRandom().random, peers.renew)
        backups = ScheduledBackups(config.backup, voter.member, identity, now_unix_ms) if voter is not None else None
        subject = Subject(
            identity,
            runtime,
            network,
            network_agent,
            view,
            renewal,
            backups,
            voter.member if voter is not None else None,
            self._address,
            lambda: connection.connected,
        )
        doctor = HostDoctor(config, subject, reports)
        garbage = Collector(config, subject, volumes, images, reports, agent, doctor.metrics, now_unix_ms)
        return Parts(
            config=config,
            identity=identity,
            runtime=runtime,
            agent=agent,
            images=images,
            pulls=ImagePulls(voter, runtime.images, images.changed) if voter is not None else None,
            connection=connection,
            forwarder=forwarder,
            events=EventLog(),
            voter=voter,
            host_services=HostServices(
                runtime,
                view,
                leader,
                leader_moved,
                voter,
                doctor,
                agent.stop_task,
                BlobSending(runtime.images, config.images.send_bytes_per_second_max),
                garbage,
                debugging=DebugContainers(runtime, images, view, config.host.run_folder / "tasks"),
            ),
            backups=backups,
            renewal=renewal,
            doctor=doctor,
            garbage=garbage,
        )

    def _file_agent(self, peers: Peers, view: HostView, voter: VoterContext | None) -> FileAgent:
        identity = self._identity

        def own(task_id: str) -> ReadTaskFilesReply:
            assert voter is not None
            key = identity.cluster_key
            return read_contents(voter.store, identity.cluster_id, key, identity.node_id, task_id)

        folder = self._config.host.run_folder
        return FileAgent(folder, view, peers, lambda: self._candidates(view), own if voter is not None else None)

    def _address(self) -> str:
        """By which the others reach this host now."""
        membership, own = self._identity.membership, self._identity.node_id
        others = [node.address for node in self._view.nodes if node.meta.id != own]
        others += [known.address for known in membership.nodes if known.node_id != own]
        return present_address(self._config.host.advertise_address, membership.address, others)

    async def _moved(self, peers: Peers, voter: VoterContext | None, address: str) -> None:
        """This host has another address."""
        if voter is not None:
            voter.member.moved(address)
        await peers.close()  # the session with the leader as well: the next one tells the address
        if voter is not None and voter.leadership.current is not None:
            own = self._identity.node_id
            nodes = [node for node in voter.store.table(objects.Node) if node.meta.id != own]
            await tell_hosts(peers, nodes, address, self._config.api.port)

    def _candidates(self, view: HostView) -> list[Leader]:
        """Voters that may know who leads: from the newest state, else as they were remembered."""
        own = self._identity.node_id
        found = {
            node.meta.id: Leader(node.meta.id, node.address, node.api_port)
            for node in view.nodes
            if node.role == objects.NODE_ROLE_VOTER
        }
        for known in self._identity.membership.nodes:
            found.setdefault(known.node_id, Leader(known.node_id, known.address, known.api_port))
        found.pop(own, None)
        return list(found.values())

    async def _serve_joins(self, voter: VoterContext, task_status: trio.TaskStatus[int]) -> None:
        def place() -> LeaderPlace | None:
            leader = voter.leader()
            node = voter.store.get(objects.Node, leader.node_id) if leader is not None else None
            return None if node is None else LeaderPlace(node.meta.id, node.address, node.join_port)

        registration = Registration(self._identity, lambda: voter.leading().writer, tunnel_mac)
        server = JoinServer(self._identity, registration.register, place)
        await server.run(self._config.join.listen_address, self._config.join.port, task_status=task_status)

    async def _remember_nodes(self, view: HostView, member: Member | None) -> None:
        remembered: list[KnownNode] = []
        while True:
            nodes = [known_node(node) for node in view.nodes if node.role == objects.NODE_ROLE_VOTER]
            own = view.node(self._identity.node_id)
            if member is not None:
                believe_session(member, view.nodes)
            if nodes and nodes != remembered:
                try:
                    name = own.meta.name if own is not None else None
                    await trio.to_thread.run_sync(self._identity.remember, nodes, name)
                    remembered = nodes
                except OSError as error:
                    logger.warning("the places of the other hosts cannot be saved: %s", error)
            await trio.sleep(REMEMBER_INTERVAL_S if remembered and (member is None or member.status().quorum) else 1.0)


async def _then_cancel(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
