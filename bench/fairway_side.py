"""Fairway under measurement: a lab of one host, driven by the `fairway` command as Swarm is by `docker`."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

import grpc

from bench.process_cost import shims_beside
from bench.programs import ROOT, output_of
from lab.cluster import Lab
from lab.host import program_folder
from lab.images import ARCHITECTURE
from lab.layout import LabError
from lab.oci_archive import ImageSettings, RootFilesystem, archive
from proto import control_pb2, control_pb2_grpc, objects_pb2

REMOVAL_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
IMAGE = "bench:1"


class FairwaySide:
    """A cluster with the image on it, of one host unless said otherwise; leaving the `with` block removes all of it."""

    def __init__(self, root: RootFilesystem, host_count: int = 1) -> None:
        self._root = root
        self._host_count = host_count
        self._folder = tempfile.TemporaryDirectory(prefix="fairway-bench-")
        self._lab: Lab | None = None

    def __enter__(self) -> FairwaySide:
        try:
            self._lab = Lab.make(f"bench-{secrets.token_hex(3)}", self._host_count, build=ROOT, host_cpu_millis=64_000)
            image = Path(self._folder.name) / "image.tar"
            image.write_bytes(archive(ImageSettings(IMAGE, ("sh",), architecture=ARCHITECTURE), self._root))
            self.fairway("image", "load", str(image))
            self._channel = grpc.insecure_channel(f"unix:{self._lab.socket('host-1')}")
            self._control = control_pb2_grpc.ControlStub(self._channel)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()
        self._stop()

    def _stop(self) -> None:
        self._folder.cleanup()
        if self._lab is not None:
            self._lab.down()

    def fairway(self, *words: str) -> str:
        """Runs the command line against the host; LabError with its words where it fails."""
        assert self._lab is not None
        return output_of(
            [str(program_folder() / "fairway"), *words],
            f"`fairway {' '.join(words)}`",
            {**os.environ, "FAIRWAY_SOCKET": str(self._lab.socket("host-1"))},
        )

    @property
    def lab(self) -> Lab:
        assert self._lab is not None
        return self._lab

    def deploy(self, name: str, text: str) -> None:
        """Deploys a Compose file with this text and waits until its tasks run."""
        file = Path(self._folder.name) / f"{name}.yaml"
        file.write_text(text)
        self.fairway("deploy", str(file))

    def create(self, name: str, count: int, command: list[str]) -> None:
        """`fairway deploy --detach` of a file with one service, which returns as soon as it is accepted."""
        file = Path(self._folder.name) / f"{name}.yaml"
        words = ", ".join(f'"{word}"' for word in command)
        file.write_text(
            f"name: {name}\nservices:\n  tasks:\n    image: {IMAGE}\n    command: [{words}]\n"
            f"    stop_grace_period: 0s\n    deploy:\n      replicas: {count}\n"
        )
        self.fairway("deploy", str(file), "--detach")

    def roll(self, name: str, count: int, command: list[str], round: str, parallelism: int, order: str) -> None:
        """As `create`, of a service whose tasks have `round` in their environment and are updated as said."""
        file = Path(self._folder.name) / f"{name}.yaml"
        words = ", ".join(f'"{word}"' for word in command)
        file.write_text(
            f"name: {name}\nservices:\n  tasks:\n    image: {IMAGE}\n    command: [{words}]\n"
            f"    stop_grace_period: 0s\n    environment: {{ROUND: {round}}}\n    deploy:\n      replicas: {count}\n"
            f"      update_config: {{parallelism: {parallelism}, order: {order}}}\n"
        )
        self.fairway("deploy", str(file), "--detach")

    def rounds_running(self, name: str) -> dict[str, int]:
        """How many tasks of the app run, by their round."""
        running = (task for task in self.tasks(name) if task.status.state == objects_pb2.TASK_STATE_RUNNING)
        return dict(Counter(task.spec.container.environment["ROUND"] for task in running))

    def running_count(self, name: str) -> int:
        """Tasks of the app that run, as the cluster knows."""
        return sum(task.status.state == objects_pb2.TASK_STATE_RUNNING for task in self.tasks(name))

    def tasks(self, name: str) -> list[objects_pb2.Task]:
        """Of an app; none where there is no such app."""
        try:
            request = control_pb2.ListTasksRequest(app=name)
            return list(self._control.ListTasks(request, timeout=10).tasks)
        except grpc.RpcError as error:
            if getattr(error, "code", lambda: None)() == grpc.StatusCode.NOT_FOUND:
                return []
            raise LabError(f"the tasks of {name} could not be listed: {error}") from error

    def nodes(self) -> list[objects_pb2.Node]:
        """Hosts of the cluster."""
        return [view.node for view in self._control.ListNodes(control_pb2.ListNodesRequest(), timeout=10).nodes]

    def remove(self, name: str) -> None:
        """Removes the app and waits until its tasks are gone."""
        self.fairway("rm", name)
        deadline = time.monotonic() + REMOVAL_SECONDS_MAX
        while self.tasks(name):
            if time.monotonic() > deadline:
                raise LabError(f"{name} was not removed within {REMOVAL_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def scale(self, name: str, count: int) -> None:
        """Asks the API for so many tasks of an app that `create` made, and returns when it has answered."""
        self._control.ScaleService(control_pb2.ScaleServiceRequest(service=f"{name}/tasks", replicas=count), timeout=10)

    def ready_count(self, name: str) -> int:
        """Tasks of the app that run and that others reach, as the cluster knows."""
        request = control_pb2.ListServicesRequest(app=name)
        return sum(view.ready for view in self._control.ListServices(request, timeout=10).services)

    def allow_starts(self, at_once: int) -> None:
        """How many containers the host makes at the same time: its setting, and its fairwayd anew."""
        assert self._lab is not None
        file = self._lab.paths.host_state("host-1") / "etc/fairwayd.toml"
        setting = "parallel_starts_max = "
        lines = [line for line in file.read_text().splitlines() if not line.startswith(setting)]
        lines.insert(lines.index("[containerd]") + 1, f"{setting}{at_once}")
        file.write_text("\n".join(lines) + "\n")
        before = self._lab.restart_daemon("host-1")
        deadline = time.monotonic() + REMOVAL_SECONDS_MAX
        while self._lab.process_ids("host-1").get("fairwayd", before) == before or not self._schedulable():
            if time.monotonic() > deadline:
                raise LabError(f"fairwayd did not come back within {REMOVAL_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def _schedulable(self) -> bool:
        try:
            return all(node.state == objects_pb2.NODE_STATE_READY for node in self.nodes())
        except grpc.RpcError:
            return False

    def daemon_pids(self) -> dict[str, list[int]]:
        """ "fairwayd", "containerd" and "shims" -> process ids on the machine."""
        assert self._lab is not None
        daemons = self._lab.process_ids("host-1")
        return {**{name: [pid] for name, pid in daemons.items()}, "shims": shims_beside(daemons["containerd"])}
