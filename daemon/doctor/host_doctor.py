"""What one host says of itself when the doctor asks: examination, paths, metrics."""

from __future__ import annotations

import trio

from daemon.agent.reports import Reports
from daemon.config import Config
from daemon.doctor.examination import Examiner
from daemon.doctor.host_metrics import HostMetrics
from daemon.doctor.metrics import Registry
from daemon.doctor.prober import Prober
from daemon.doctor.subject import Subject
from daemon.errors import Kind, Refused
from net.errors import NetworkError
from proto.doctor_pb2 import ExamineReply, ObservePathRequest, PathObservation, ReadMetricsReply
from proto.host_pb2 import ReadPolicyCountsReply

AT_ONCE_MAX = 4  # examinations and observations; each takes a thread and some CPU


class HostDoctor:
    """Of a host in a cluster."""

    def __init__(self, config: Config, subject: Subject, reports: Reports) -> None:
        self.metrics = Registry()
        self.metrics.collect(HostMetrics(config, subject))
        self._network = subject.network
        self._prober = Prober(subject.network, reports, self.metrics)
        self._examiner = Examiner(config, subject, self._prober.failing)
        self._room = trio.CapacityLimiter(AT_ONCE_MAX)

    async def run(self) -> None:
        """Probes other hosts until cancelled."""
        await self._prober.run()

    async def examine(self) -> ExamineReply:
        async with self._room:
            return await self._examiner.examine()

    async def observe_path(self, request: ObservePathRequest) -> PathObservation:
        """Raises Refused where this host's network is not known yet."""
        async with self._room:
            try:
                return await self._network.observe_path(request)
            except NetworkError as error:
                raise Refused(str(error), Kind.UNAVAILABLE) from error

    async def read_policy_counts(self) -> ReadPolicyCountsReply:
        """Raises Refused where the kernel does not tell."""
        try:
            return await self._network.policy_counts()
        except NetworkError as error:
            raise Refused(str(error), Kind.UNAVAILABLE) from error

    def read_metrics(self) -> ReadMetricsReply:
        return ReadMetricsReply(text=self.metrics.text())
