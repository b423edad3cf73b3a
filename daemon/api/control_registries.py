"""The control API's methods about registries. A password is sealed before anything else is done with it, never told."""

from __future__ import annotations

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.identity.registry_sealing import opened_password, sealed_password
from daemon.pulling import registry_plan
from daemon.pulling.pulls import ImagePulls
from proto import control_pb2 as control
from proto import objects_pb2 as objects


class ControlRegistries:
    """Runs on the leader, which is also what speaks with registries."""

    def __init__(self, context: VoterContext, pulls: ImagePulls) -> None:
        self._context = context
        self._pulls = pulls

    async def update_registry(
        self, request: control.UpdateRegistryRequest, caller: Caller
    ) -> control.UpdateRegistryReply:
        identity = self._context.identity
        name = registry_plan.checked_name(request.registry)
        sealed = b""
        if request.HasField("login"):
            sealed = sealed_password(identity, name, request.login.password)
            known = registry_plan.find_registry(await self._context.current_store(), name)
            tried = registry_plan.updated(known, request, sealed)
            await self._pulls.check(registry_plan.endpoint(name, tried, lambda one: opened_password(identity, one)))
        registry, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: registry_plan.plan_update(store, request, sealed, new_id), caller.actor
        )
        return control.UpdateRegistryReply(registry=registry)

    async def list_registries(
        self, _request: control.ListRegistriesRequest, _caller: Caller
    ) -> control.ListRegistriesReply:
        store = await self._context.current_store()
        found = sorted(store.table(objects.Registry), key=lambda registry: registry.meta.name)
        return control.ListRegistriesReply(registries=[registry_plan.hidden(registry) for registry in found])

    async def remove_registry(
        self, request: control.RemoveRegistryRequest, caller: Caller
    ) -> control.RemoveRegistryReply:
        await self._context.leading().writer.commit(
            lambda store, _now, _id: registry_plan.plan_removal(store, request.registry), caller.actor
        )
        return control.RemoveRegistryReply()
