"""The control API's methods about jobs: runs begun by hand, and tasks that run once."""

from __future__ import annotations

from daemon import lookup
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.deploying.job_changes import plan_run_once, plan_trigger
from daemon.leader.writer import swapped
from proto import control_pb2 as control
from proto import objects_pb2 as objects


class ControlJobs:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def trigger_job(self, request: control.TriggerJobRequest, caller: Caller) -> control.TriggerJobReply:
        service, revision = await self._context.leading().writer.commit(
            lambda store, now, _id: swapped(plan_trigger(lookup.find_service(store, request.service), now)),
            caller.actor,
            request.request_id,
        )
        stored = self._context.store.get(objects.Service, service.meta.id) or service
        return control.TriggerJobReply(service=stored, run=service.run_count, revision=revision)

    async def run_once(self, request: control.RunOnceRequest, caller: Caller) -> control.RunOnceReply:
        service, revision = await self._context.leading().writer.commit(
            lambda store, _now, new_id: swapped(
                plan_run_once(store, lookup.find_service(store, request.service), request, new_id)
            ),
            caller.actor,
            request.request_id,
        )
        return control.RunOnceReply(service=service, revision=revision)
