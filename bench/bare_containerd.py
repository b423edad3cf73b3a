"""containerd with nothing around it: containers made and started by gRPC, the least that a program can do for one.

The same containerd package, root file system and OCI specification as Fairway's; each container has a shim of its own,
as containerd makes it, an empty network namespace, and no output that anybody reads.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from bench.programs import containerd, output_of
from lab import cgroups
from lab.images import ARCHITECTURE
from lab.layout import LabError
from lab.oci_archive import ImageSettings, RootFilesystem, archive
from proto import containerd_pb2 as api
from proto import objects_pb2 as objects
from runtime import cgroup, oci_spec
from runtime.model import ContainerRequest, ImageConfig
from runtime.users import ProcessUser

CALL_SECONDS_MAX = 60.0
NAMESPACE = "bench"
RUNTIME_NAME = "io.containerd.runc.v2"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
SNAPSHOTTER = "overlayfs"
REMOVED_AT_ONCE = 8

Reply = TypeVar("Reply", bound=Message)


class BareContainerd:
    """A containerd of its own with the image in it; leaving the `with` block removes all of it."""

    def __init__(self, root: RootFilesystem) -> None:
        self._root = root
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-ctrd-", dir="/var/tmp"))
        self._running = ExitStack()
        self._numbers = itertools.count()
        self._options = AnyMessage(
            type_url="containerd.runc.v1.Options",
            value=api.RuncOptions(root=str(self._folder / "runc")).SerializeToString(),
        )

    def __enter__(self) -> BareContainerd:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()
        self._stop()

    def start_seconds(self, count: int, command: list[str], at_a_time: int) -> float:
        """Seconds until `count` containers run, made by so many callers; all are removed again."""
        ids = [f"c{next(self._numbers)}" for _ in range(count)]
        try:
            with ThreadPoolExecutor(at_a_time) as callers:
                began = time.monotonic()
                list(callers.map(lambda identity: self._run(identity, command), ids))
                return time.monotonic() - began
        finally:
            with ThreadPoolExecutor(REMOVED_AT_ONCE) as callers:
                list(callers.map(self._remove, ids))

    def _start(self) -> None:
        socket = self._running.enter_context(containerd(self._folder))
        image = self._folder / "image.tar"
        image.write_bytes(archive(ImageSettings("bench:1", ("sh",), architecture=ARCHITECTURE), self._root))
        output_of(["ctr", "-a", str(socket), "-n", NAMESPACE, "image", "import", str(image)], "ctr image import")
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        filters = api.ListSnapshotsRequest(snapshotter=SNAPSHOTTER)
        call = self._channel.unary_stream(
            "/containerd.services.snapshots.v1.Snapshots/List",
            request_serializer=api.ListSnapshotsRequest.SerializeToString,
            response_deserializer=api.ListSnapshotsResponse.FromString,
        )
        replies = call(filters, metadata=_METADATA, timeout=CALL_SECONDS_MAX)
        (self._top,) = [info.name for reply in replies for info in reply.info]  # the image has one layer

    def _run(self, identity: str, command: list[str]) -> None:
        spec = json.dumps(self._spec(identity, command)).encode()
        container = api.Container(
            id=identity,
            image="bench:1",
            runtime=api.ContainerRuntime(name=RUNTIME_NAME, options=self._options),
            spec=AnyMessage(type_url=SPEC_TYPE, value=spec),
            snapshotter=SNAPSHOTTER,
            snapshot_key=identity,
        )
        self._call("containers.v1.Containers/Create", api.CreateContainerRequest(container=container))
        prepare = api.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=identity, parent=self._top)
        mounts = self._call("snapshots.v1.Snapshots/Prepare", prepare, api.MountsResponse).mounts
        task = api.CreateTaskRequest(container_id=identity, rootfs=mounts, options=self._options)
        self._call("tasks.v1.Tasks/Create", task)
        self._call("tasks.v1.Tasks/Start", api.StartRequest(container_id=identity))

    def _remove(self, identity: str) -> None:
        with suppress(grpc.RpcError):  # what was not made need not be removed
            self._call("tasks.v1.Tasks/Kill", api.KillRequest(container_id=identity, signal=9))
            self._call("tasks.v1.Tasks/Wait", api.WaitRequest(container_id=identity))
            self._call("tasks.v1.Tasks/Delete", api.DeleteTaskRequest(container_id=identity))
        with suppress(grpc.RpcError):
            self._call("containers.v1.Containers/Delete", api.DeleteContainerRequest(id=identity))
        with suppress(grpc.RpcError):
            request = api.SnapshotKeyRequest(snapshotter=SNAPSHOTTER, key=identity)
            self._call("snapshots.v1.Snapshots/Remove", request)

    def _spec(self, identity: str, command: list[str]) -> dict[str, Any]:
        wanted = objects.ContainerSpec()
        wanted.command.values.extend(command)
        request = ContainerRequest(identity, "", wanted, objects.Resources())
        facts = oci_spec.HostFacts(ARCHITECTURE, cgroup.detect(), f"/{self._folder.name}")
        return oci_spec.build(request, ImageConfig(ARCHITECTURE, "linux", ()), ProcessUser(0, 0, (), "/root"), facts)

    def _call(self, method: str, request: Message, reply_type: type[Reply] = Empty) -> Reply:  # type: ignore[assignment]
        call = self._channel.unary_unary(
            f"/containerd.services.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply_type.FromString,
        )
        reply: Reply = call(request, metadata=_METADATA, timeout=CALL_SECONDS_MAX)
        return reply

    def _stop(self) -> None:
        self._running.close()
        left = cgroups.remove(f"/{self._folder.name}")  # ends what still runs, and by that its shims
        shutil.rmtree(self._folder, ignore_errors=True)
        if left:
            raise LabError(f"these control groups could not be removed: {', '.join(left)}")


_METADATA = (("containerd-namespace", NAMESPACE),)
