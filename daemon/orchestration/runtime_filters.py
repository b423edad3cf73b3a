"""Which hosts lack the runtime that a task asks for by name."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration.scheduler_filters import Filter
from daemon.orchestration.scheduler_hosts import Hosts
from daemon.orchestration.scheduler_words import Refusal
from proto import objects_pb2 as objects
from proto.container_rules import RUNC


def runtime_filters(hosts: Hosts, container: objects.ContainerSpec) -> Iterator[Filter]:
    """None where all hosts have it."""
    wanted = container.isolation.runtime
    if not wanted:
        return
    column, has = hosts.column(f"runtime {wanted}", lambda node: wanted in (node.description.runtimes or (RUNC,)))
    if False in has:
        words = f"no runtime {wanted}"
        remedy = f"install {wanted} on {{host}}, and name it in containerd.runtimes of its fairwayd.toml"
        yield Filter(Refusal(words, f"has {words}", f"have {words}", remedy), column == has.index(False))
