"""The control API's methods about apps and services."""

from __future__ import annotations

from collections.abc import Callable

from daemon import lookup
from daemon.api import control_views as views
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.control_files import prepared_files
from daemon.deploying.deploy_plan import plan_deploy
from daemon.deploying.rollout_changes_plan import plan_steer
from daemon.deploying.service_changes_plan import plan_remove_app, plan_remove_service, plan_scale
from daemon.ids import new_id
from daemon.leader.leadership import now_unix_ms
from daemon.leader.writer import swapped
from daemon.orchestration.job_runs import last_run_succeeded
from daemon.orchestration.kinds import is_job
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

Deployed = tuple[control.PlanAppReply, objects.App]


class ControlApps:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def plan_app(self, request: control.DeployAppRequest, _caller: Caller) -> control.PlanAppReply:
        store = await self._context.current_store()
        files = prepared_files(request.app, self._context.identity)
        plan, _, _ = plan_deploy(store, request.app, now_unix_ms(), new_id, files)
        return plan

    async def deploy_app(self, request: control.DeployAppRequest, caller: Caller) -> control.DeployAppReply:
        files = prepared_files(request.app, self._context.identity)

        def plan(store: Store, now: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, Deployed]:
            changes, builder, app = plan_deploy(store, request.app, now, new_id, files)
            return builder, (changes, app)

        (changes, app), revision = await self._context.leading().writer.commit(plan, caller.actor, request.request_id)
        stored = self._context.store.get(objects.App, app.meta.id)
        return control.DeployAppReply(plan=changes, app=stored or app, revision=revision)

    async def list_apps(self, _request: control.ListAppsRequest, _caller: Caller) -> control.ListAppsReply:
        store = await self._context.current_store()
        reply = control.ListAppsReply()
        for app in sorted(store.table(objects.App), key=lambda app: app.meta.name):
            key = (app.meta.tenant, app.meta.name)
            services = store.table(objects.Service).by("app", key)
            wanted, running = views.wanted_and_running(store.table(objects.Task).by("app", key), services)
            reply.apps.add(
                app=app,
                service_count=len(services),
                task_running_count=running,
                task_wanted_count=wanted,
                job_count=sum(is_job(service.spec) for service in services),
                job_done_count=sum(last_run_succeeded(service) for service in services),
            )
        return reply

    async def remove_app(self, request: control.RemoveAppRequest, caller: Caller) -> control.RemoveAppReply:
        names, _ = await self._context.leading().writer.commit(
            lambda store, now, _id: swapped(plan_remove_app(store, request, now)), caller.actor
        )
        return control.RemoveAppReply(services=names)

    async def list_services(self, request: control.ListServicesRequest, _caller: Caller) -> control.ListServicesReply:
        store = await self._context.current_store()
        found = lookup.find_services(store, request.service, request.app)
        found.sort(key=lambda service: (service.app, service.meta.name))
        all_of_them = [service if request.service else views.without_history(service) for service in found]
        return control.ListServicesReply(services=[views.service_view(store, service) for service in all_of_them])

    async def scale_service(self, request: control.ScaleServiceRequest, caller: Caller) -> control.ScaleServiceReply:
        service, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: swapped(
                plan_scale(store, lookup.find_service(store, request.service), request.replicas)
            ),
            caller.actor,
        )
        return control.ScaleServiceReply(service=self._context.store.get(objects.Service, service.meta.id) or service)

    async def steer_rollout(self, request: control.SteerRolloutRequest, caller: Caller) -> control.SteerRolloutReply:
        (service, message), revision = await self._context.leading().writer.commit(
            lambda store, now, _id: swapped(
                plan_steer(store, lookup.find_service(store, request.service), request, now)
            ),
            caller.actor,
        )
        stored = self._context.store.get(objects.Service, service.meta.id) or service
        return control.SteerRolloutReply(service=stored, message=message, revision=revision)

    async def remove_service(self, request: control.RemoveServiceRequest, caller: Caller) -> control.RemoveServiceReply:
        await self._context.leading().writer.commit(
            lambda store, _now, _id: (
                plan_remove_service(store, lookup.find_service(store, request.service)),
                None,
            ),
            caller.actor,
        )
        return control.RemoveServiceReply()
