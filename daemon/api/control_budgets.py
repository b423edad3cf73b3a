"""The control API's methods about what tenants may have, and about how tasks lie over hosts."""

from __future__ import annotations

import trio

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.deploying.quota_changes_plan import plan_remove_quota, plan_set_quota, quota_views
from daemon.ids import new_id
from daemon.leader.leadership import now_unix_ms
from daemon.leader.writer import swapped
from proto import control_pb2 as control

LOOK_S_MAX = 0.3  # for moves, while nothing else is done


class ControlBudgets:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def set_quota(self, request: control.SetQuotaRequest, caller: Caller) -> control.SetQuotaReply:
        view, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: swapped(plan_set_quota(store, request, new_id)), caller.actor
        )
        return control.SetQuotaReply(quota=view)

    async def list_quotas(self, request: control.ListQuotasRequest, _caller: Caller) -> control.ListQuotasReply:
        return control.ListQuotasReply(quotas=quota_views(await self._context.current_store(), request.tenant))

    async def remove_quota(self, request: control.RemoveQuotaRequest, caller: Caller) -> control.RemoveQuotaReply:
        view, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: swapped(plan_remove_quota(store, request.tenant)), caller.actor
        )
        return control.RemoveQuotaReply(quota=view)

    async def rebalance(self, request: control.RebalanceRequest, caller: Caller) -> control.RebalanceReply:
        from daemon.deploying.rebalance_changes_plan import (
            plan_rebalance,
        )  # loads the scheduler, as being the leader does

        store = await self._context.current_store()
        ends_s = trio.current_time() + LOOK_S_MAX

        def out_of_time() -> bool:
            return trio.current_time() > ends_s

        if request.plan_only or request.status_only:
            return plan_rebalance(store, request, now_unix_ms(), new_id, out_of_time)[0]
        reply, _ = await self._context.leading().writer.commit(
            lambda store, now, make_id: swapped(plan_rebalance(store, request, now, make_id, out_of_time)), caller.actor
        )
        return reply
