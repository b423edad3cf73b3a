"""Has the cluster pull an image, and shows how far each layer is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

import grpc

from cli import output, words
from cli.compose.pull_policy import POLICIES
from cli.connection import Cluster
from cli.failure import CommandFailed
from cli.live import Live
from cli.progress_plan import Line, Progress
from proto import control_pb2, objects_pb2

PULL_SECONDS_MAX = 4 * 3600.0
DIGEST_LENGTH = 12


def pull(cluster: Cluster, image: str, refresh: bool, stream: TextIO) -> control_pb2.PullImageReply:
    """Returns when the leader has the image; CommandFailed where it cannot be had."""
    asked = f"pull {image}"
    request = control_pb2.PullImageRequest(image=image, refresh=refresh)
    live, last = Live(stream), control_pb2.PullImageReply()
    for reply in cluster.stream(asked, lambda control: control.PullImage(request, timeout=PULL_SECONDS_MAX)):
        last = reply
        if reply.layers and not reply.present:
            live.show(Progress(tuple(_line(layer, stream.isatty()) for layer in reply.layers)))
    if not last.image_id:
        raise CommandFailed(asked, "the pull ended without an answer; see `fairway image ls`")
    return last


def pull_for(
    cluster: Cluster,
    services: Iterable[objects_pb2.ServiceSpec],
    stream: TextIO,
    *,
    policy: str = "",
    leave_missing: bool = False,
) -> None:
    """What a deploy pulls before: each image once. One that is only missing and does not come is a warning: the
    service's tasks wait, and the leader tries again. `policy` is in place of those of the services; `leave_missing`
    leaves what is only missing to the leader from the start."""
    wanted: dict[str, bool] = {}
    for spec in services:
        if policy:
            spec.container.pull_policy = POLICIES[policy]
        if spec.container.pull_policy == objects_pb2.PULL_POLICY_NEVER:
            continue
        refresh = spec.container.pull_policy == objects_pb2.PULL_POLICY_ALWAYS
        for name in (spec.container.image, *(init.image for init in spec.container.init_tasks)):
            if name:
                wanted[name] = wanted.get(name, False) or refresh
    for name, refresh in sorted(wanted.items()):
        if leave_missing and not refresh:
            continue
        try:
            reply = pull(cluster, name, refresh, stream)
        except CommandFailed as failure:
            if refresh:
                raise
            if not _unknown(failure):
                output.warn(str(failure))
        else:
            if not reply.present:
                print(pulled_words(reply), file=stream)


def pulled_words(reply: control_pb2.PullImageReply) -> str:
    if reply.present:
        return f"{reply.name} is up to date ({reply.manifest_digest})"
    size_bytes = sum(layer.size_bytes for layer in reply.layers)
    return f"Pulled {reply.name} ({words.size(size_bytes)}, {reply.manifest_digest})"


def _unknown(failure: CommandFailed) -> bool:
    """A daemon of an earlier version, which pulls nothing: its deploy says which images lack."""
    cause: Any = failure.__cause__  # grpcio's errors are calls as well, which its types do not say
    return hasattr(cause, "code") and cause.code() == grpc.StatusCode.UNIMPLEMENTED


def _line(layer: control_pb2.LayerProgress, exact: bool) -> Line:
    name = layer.digest.removeprefix("sha256:")[:DIGEST_LENGTH]
    size = words.size(layer.size_bytes)
    if layer.here:
        return Line(name, "done", size)
    return Line(name, "going", f"{words.size(layer.done_bytes)} of {size}" if exact else f"pulling {size}")
