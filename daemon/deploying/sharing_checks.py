"""What must hold of services that share process ids or IPC with the tasks of another one. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration.kinds import is_job
from daemon.orchestration.sharing import owner_name, shared_words, shares
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.container_rules import SHIM_PREFIX, ipc_sysctl


def sharing_problems(app: control.AppSpec, name: str, spec: objects.ServiceSpec) -> Iterator[str]:
    """Of one service of the app."""
    sharing = spec.container.sharing
    if not shares(spec):
        return
    if sharing.processes and sharing.ipc and sharing.processes != sharing.ipc:
        yield f"it is to share the processes of {sharing.processes} and the IPC of {sharing.ipc}: name one service"
        return
    owner, shared = owner_name(spec), shared_words(spec)
    if owner == name:
        yield f"it is to share the {shared} of itself"
    elif owner not in app.services:
        yield f"it is to share the {shared} of service {owner}, which is not in the app"
    else:
        yield from _beside(app.services[owner], owner, spec)
    if spec.HasField("stateful"):
        yield f"its slots keep their hosts (stateful), and it is to be where the tasks of {owner} are"
    if spec.container.isolation.runtime.startswith(SHIM_PREFIX):
        yield f"the shim {spec.container.isolation.runtime} is not known to share {shared} between tasks"
    if sharing.ipc and spec.container.shm_size_bytes:
        yield f"its /dev/shm is that of {owner}: say shm_size there"
    for each in sorted(spec.container.sysctls):
        if sharing.ipc and ipc_sysctl(each):
            yield f"its IPC is that of {owner}: set {each} there"


def sharing_changes(old: objects.ContainerSpec, new: objects.ContainerSpec) -> list[str]:
    """Reasons why tasks are made anew."""
    reasons = []
    for name, words in (("processes", "processes"), ("ipc", "IPC")):
        was, now = getattr(old.sharing, name), getattr(new.sharing, name)
        if was != now:
            reasons.append(f"{words} shared with {was or 'none'} -> {now or 'none'}")
    return reasons


def _beside(owner: objects.ServiceSpec, name: str, spec: objects.ServiceSpec) -> Iterator[str]:
    shared = shared_words(spec)
    if shares(owner):
        yield f"it is to share the {shared} of {name}, which shares those of {owner_name(owner)}: name that one"
    if is_job(spec) or is_job(owner):
        yield f"tasks of jobs share their {shared} with no others"
    elif spec.kind != owner.kind:
        yield f"one of {name} and it has a task on each host, and the other has not: they cannot share their {shared}"
    if spec.container.isolation.runtime != owner.container.isolation.runtime:
        yield f"its runtime is not that of {name}, whose {shared} it is to share"
    if spec.container.isolation.user_namespace != owner.container.isolation.user_namespace:
        yield f"its userns_mode is not that of {name}, whose {shared} it is to share"
    if spec.precedence.priority > owner.precedence.priority:
        yield f"its priority is above that of {name}, without which it does not run"
    if spec.precedence.group and spec.precedence.group == owner.precedence.group:
        yield f"it starts after {name}, whose {shared} it shares, and group {spec.precedence.group} starts at once"
