"""The control API's methods about policies."""

from __future__ import annotations

import grpc

from daemon.api.asking import ask_each
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.doctor.host_doctor import HostDoctor
from daemon.errors import Refused
from daemon.ids import new_id
from daemon.leader.writer import swapped
from daemon.policies.policy_changes_plan import plan_apply_policies, plan_remove_policy
from daemon.policies.policy_listing_plan import add_counts, policy_views
from daemon.policies.policy_test_plan import answer_test
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2 import ReadPolicyCountsReply, ReadPolicyCountsRequest

HOST_S_MAX = 3.0


class ControlPolicies:
    """Runs on the leader."""

    def __init__(self, context: VoterContext, own: HostDoctor) -> None:
        self._context = context
        self._own = own

    async def apply_policies(self, request: control.ApplyPoliciesRequest, caller: Caller) -> control.ApplyPoliciesReply:
        if request.plan_only:
            return plan_apply_policies(await self._context.current_store(), request, new_id)[0]
        reply, _ = await self._context.leading().writer.commit(
            lambda store, _now, make_id: swapped(plan_apply_policies(store, request, make_id)), caller.actor
        )
        return reply

    async def remove_policy(self, request: control.RemovePolicyRequest, caller: Caller) -> control.RemovePolicyReply:
        policy, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: swapped(plan_remove_policy(store, request.policy)), caller.actor
        )
        return control.RemovePolicyReply(policy=policy)

    async def test_policy(self, request: control.TestPolicyRequest, _caller: Caller) -> control.TestPolicyReply:
        return answer_test(await self._context.current_store(), request)

    async def list_policies(self, request: control.ListPoliciesRequest, _caller: Caller) -> control.ListPoliciesReply:
        store = await self._context.current_store()
        views = policy_views(store, request.policy)
        silent: list[str] = []
        if request.counts:
            replies: list[ReadPolicyCountsReply] = []
            await ask_each(list(store.table(objects.Node)), lambda node: self._ask(node, replies, silent))
            add_counts(store, views, replies)
        return control.ListPoliciesReply(policies=views, silent=sorted(silent))

    async def _ask(self, node: objects.Node, replies: list[ReadPolicyCountsReply], silent: list[str]) -> None:
        try:
            if node.meta.id == self._context.identity.node_id:
                replies.append(await self._own.read_policy_counts())
                return
            if node.state == objects.NODE_STATE_DOWN:
                silent.append(node.meta.name)
                return
            asked = self._context.host(node).ReadPolicyCounts(ReadPolicyCountsRequest(), timeout=HOST_S_MAX)
            replies.append(await call(asked))  # type: ignore[arg-type]
        except (grpc.aio.AioRpcError, Refused):
            silent.append(node.meta.name)
