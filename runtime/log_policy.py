"""What is kept of a task's log: the host's own bounds, or those that the task's spec says. Pure.

A container carries it as a label, since a daemon that comes back to it reads on with nothing but containerd's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proto import objects_pb2
from runtime.model import RuntimeSettings

LABEL = "fairway/log"
_NOTHING = "none"


@dataclass(frozen=True)
class LogPolicy:
    """`kept` False: the process's output is read and thrown away."""

    size_bytes_max: int  # of one file
    files_max: int  # of one task
    compress: bool = False  # what is not written to any more
    kept: bool = True
    age_s_max: int = 0  # of one file; 0: no bound
    lines_per_s_max: int = 0  # of one task; 0: no bound
    bytes_per_s_max: int = 0  # the same


def usual(settings: RuntimeSettings) -> LogPolicy:
    """Where nothing is said."""
    return LogPolicy(settings.log_size_bytes_max, settings.log_files_max)


def policy_of(spec: objects_pb2.ContainerSpec, settings: RuntimeSettings) -> LogPolicy:
    """The task's own, with the host's in place of what it does not say."""
    said, host = spec.logging, usual(settings)
    return LogPolicy(
        said.size_bytes_max or host.size_bytes_max,
        said.files_max or host.files_max,
        said.compress,
        said.driver != objects_pb2.Logging.DRIVER_NONE,
        said.age_s_max,
        said.lines_per_s_max,
        said.bytes_per_s_max,
    )


def labels(spec: objects_pb2.ContainerSpec, settings: RuntimeSettings) -> dict[str, str]:
    """What the container of this spec is to carry; nothing where the host's bounds hold, which may change."""
    if not spec.HasField("logging"):
        return {}
    policy = policy_of(spec, settings)
    if not policy.kept:
        return {LABEL: _NOTHING}
    numbers = [policy.size_bytes_max, policy.files_max, int(policy.compress)]
    more = [policy.age_s_max, policy.lines_per_s_max, policy.bytes_per_s_max]
    numbers += more if any(more) else []  # an older daemon cannot read those
    return {LABEL: " ".join(map(str, numbers))}


def from_labels(found: Mapping[str, str], settings: RuntimeSettings) -> LogPolicy:
    """The other way; the host's where a label says nothing that can be read."""
    text, host = found.get(LABEL, ""), usual(settings)
    if text == _NOTHING:
        return LogPolicy(host.size_bytes_max, host.files_max, kept=False)
    try:
        size_bytes, files, compress, *more = map(int, text.split())
        age_s, lines_per_s, bytes_per_s = more or (0, 0, 0)
    except ValueError:
        return host
    return LogPolicy(size_bytes, files, bool(compress), True, age_s, lines_per_s, bytes_per_s)
