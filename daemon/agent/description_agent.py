"""Tells the cluster what this host is and has, at once where containerd ends, hangs or answers again."""

from __future__ import annotations

import trio

from daemon.agent.reports import Reports
from daemon.config import Config
from daemon.identity.host_description import describe_host
from net import features as network_features
from proto import objects_pb2 as objects
from runtime import features as runtime_features
from runtime.runtime import Runtime

INTERVAL_S = 30.0
LACKING_INTERVAL_S = 1.0
FIRST_ANSWER_S_MAX = 3.0  # for containerd, before the host is described without it


class DescriptionAgent:
    def __init__(self, config: Config, runtime: Runtime, reports: Reports) -> None:
        self._config = config
        self._runtime = runtime
        self._reports = reports

    async def run(self) -> None:
        """Until cancelled."""
        with trio.move_on_after(FIRST_ANSWER_S_MAX):
            await self._runtime.wait_healthy()
        while True:
            missing = await self._look()
            with trio.move_on_after(LACKING_INTERVAL_S if missing else INTERVAL_S):
                await self._runtime.wait_changed()

    async def _look(self) -> tuple[str, ...]:
        """What the host lacks to run tasks; it gets no new ones, those that run go on."""
        runtime, error = self._runtime, self._runtime.error
        missing = tuple(await trio.to_thread.run_sync(network_features.check))
        missing += tuple(await runtime_features.check(runtime.version))
        if error:
            missing = (*missing, f"a containerd that answers ({error})")
        self._reports.description(await trio.to_thread.run_sync(self._describe, missing))
        return missing

    def _describe(self, missing: tuple[str, ...]) -> objects.NodeDescription:
        config = self._config
        lacks = runtime_features.lacking(config.containerd.user_ids_first, config.storage.volumes_folder)
        return describe_host(config, self._runtime.version, missing, lacks)
