"""The control API's methods about the cluster, its nodes, tokens and events."""

from __future__ import annotations

import trio

from daemon import lookup
from daemon.api import control_views as views
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.control_raft import hand_over
from daemon.api.event_log import EventLog
from daemon.api.grpc_service import Send
from daemon.deploying.node_changes_plan import plan_remove_node, plan_update_node
from daemon.errors import Kind, Refused
from daemon.identity import tokens
from daemon.identity.certificates import ca_fingerprint, load_certificate
from daemon.ids import new_id
from daemon.leader.leadership import now_unix_ms
from daemon.leader.writer import swapped
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.errors import NotServed
from raft.transaction import TransactionBuilder

TOKEN_VALID_MS_DEFAULT = 24 * 3600 * 1000
TOKEN_VALID_MS_MAX = 365 * 24 * 3600 * 1000


class ControlCluster:
    """Runs on the leader."""

    def __init__(self, context: VoterContext, events: EventLog) -> None:
        self._context = context
        self._events = events

    async def get_cluster(self, _request: control.GetClusterRequest, _caller: Caller) -> control.GetClusterReply:
        store = await self._context.current_store()
        status = self._context.member.status()
        services = list(store.table(objects.Service))
        wanted, running = views.wanted_and_running(store.table(objects.Task), services)
        reply = control.GetClusterReply(
            leader_id=status.leader_id or "",
            term=status.term,
            revision=store.revision,
            nodes=sorted(store.table(objects.Node), key=lambda node: node.meta.name),
            voters=status.voters,
            app_count=len(store.table(objects.App)),
            service_count=len(services),
            task_wanted_count=wanted,
            task_running_count=running,
        )
        for cluster in store.table(objects.Cluster):
            reply.cluster.CopyFrom(views.public_cluster(cluster))
        return reply

    async def list_nodes(self, request: control.ListNodesRequest, _caller: Caller) -> control.ListNodesReply:
        store = await self._context.current_store()
        sessions = self._context.leading().sessions
        leader_id = self._context.member.status().leader_id or ""
        nodes = [lookup.find_node(store, request.node)] if request.node else list(store.table(objects.Node))
        return control.ListNodesReply(
            nodes=[
                views.node_view(store, node, leader_id, sessions.silent_ms(node.meta.id))
                for node in sorted(nodes, key=lambda node: node.meta.name)
            ]
        )

    async def update_node(self, request: control.UpdateNodeRequest, caller: Caller) -> control.UpdateNodeReply:
        node, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: swapped(plan_update_node(store, request)), caller.actor
        )
        return control.UpdateNodeReply(node=self._context.store.get(objects.Node, node.meta.id) or node)

    async def remove_node(self, request: control.RemoveNodeRequest, caller: Caller) -> control.RemoveNodeReply:
        leading = self._context.leading()
        node = lookup.find_node(await self._context.current_store(), request.node)
        if node.meta.id == self._context.identity.node_id:
            await hand_over(self._context)
            raise Refused(
                f"{node.meta.name} led the cluster and has handed over; try again to remove it",
                Kind.UNAVAILABLE,
            )
        message, _ = await leading.writer.commit(
            lambda store, _now, _id: swapped(plan_remove_node(store, request)), caller.actor
        )
        if node.meta.id in self._context.member.status().voters:
            try:
                await self._context.member.remove_voter(node.meta.id)
            except NotServed as error:
                message += f" It still has a vote, which the cluster takes away by itself: {error}."
        leading.sessions.end(node.meta.id)
        await self._context.peers.forget(node.meta.id)
        return control.RemoveNodeReply(message=message)

    async def create_token(self, request: control.CreateTokenRequest, caller: Caller) -> control.CreateTokenReply:
        if request.role not in (objects.NODE_ROLE_VOTER, objects.NODE_ROLE_WORKER):
            raise Refused("a token is for the role voter or worker")
        valid_ms = request.valid_ms or TOKEN_VALID_MS_DEFAULT
        if not 0 < valid_ms <= TOKEN_VALID_MS_MAX:
            raise Refused("a token is valid for at least a millisecond and at most 365 days")
        cluster = next(iter(self._context.store.table(objects.Cluster)))
        fingerprint = ca_fingerprint(load_certificate(cluster.ca_certificate_pem))
        token, text = tokens.create(new_id(), request.name, request.role, now_unix_ms() + valid_ms, fingerprint)
        await self._context.leading().writer.commit(
            lambda _store, _now, _id: (TransactionBuilder().create(token), None), caller.actor
        )
        return control.CreateTokenReply(token=token, text=text)

    async def list_tokens(self, _request: control.ListTokensRequest, _caller: Caller) -> control.ListTokensReply:
        store = await self._context.current_store()
        known = sorted(store.table(objects.JoinToken), key=lambda token: token.meta.created_unix_ms)
        return control.ListTokensReply(tokens=[_without_secret(token) for token in known])

    async def revoke_token(self, request: control.RevokeTokenRequest, caller: Caller) -> control.RevokeTokenReply:
        def plan(store: object, _now: int, _id: object) -> tuple[TransactionBuilder, None]:
            matches = [
                token
                for token in self._context.store.table(objects.JoinToken)
                if request.token and (token.meta.id.startswith(request.token) or token.meta.name == request.token)
            ]
            if len(matches) != 1:
                what = "there is no token" if not matches else f"{len(matches)} tokens match"
                raise Refused(f"{what} {request.token!r}; `fairway token ls` lists them", Kind.NOT_FOUND)
            token = objects.JoinToken()
            token.CopyFrom(matches[0])
            token.revoked = True
            return TransactionBuilder().update(token), None

        await self._context.leading().writer.commit(plan, caller.actor)
        return control.RevokeTokenReply()

    async def list_events(self, request: control.ListEventsRequest, _caller: Caller, send: Send) -> None:
        def wanted(event: objects.Event) -> bool:
            return event.unix_ms >= request.since_unix_ms and request.app in ("", event.app)

        position = 0
        while True:
            changed = self._events.changed
            events, position = self._events.after(position)
            for event in events:
                if wanted(event):
                    await send(event)
            if not request.follow:
                return
            await changed.wait()
            await trio.lowlevel.checkpoint()


def _without_secret(token: objects.JoinToken) -> objects.JoinToken:
    public = objects.JoinToken()
    public.CopyFrom(token)
    public.ClearField("secret_sha256")
    return public
