"""What the settings of a container may say, before they reach a host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from proto import objects_pb2 as objects
from proto.container_rules import (
    OOM_SCORE_ADJ_MAX,
    annotation_problem,
    device_problem,
    seccomp_problem,
    sysctl_problem,
    ulimit_problem,
)

# A host that does not know one of these would run the container without it.
SETTINGS = (
    "ulimits",
    "sysctls",
    "shm_size_bytes",
    "group_add",
    "annotations",
    "oom_score_adj",
    "domainname",
    "seccomp_profile",
    "apparmor_profile",
    "devices",
)
ENTRIES_MAX = 256  # of each setting
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_PROFILE = re.compile(r"[!-~]{1,255}")


def says_settings(spec: objects.ServiceSpec) -> bool:
    """Whether hosts must know more than the first feature level to run it."""
    return any(getattr(spec.container, name) for name in SETTINGS) or spec.container.HasField("probes")


def container_problems(container: objects.ContainerSpec) -> Iterator[str]:
    for name in ("ulimits", "sysctls", "group_add", "annotations", "devices"):
        if len(getattr(container, name)) > ENTRIES_MAX:
            yield f"it has more than {ENTRIES_MAX} {name.replace('_', ' ')}"
    for limit in container.ulimits:
        if problem := ulimit_problem(limit.name, limit.soft, limit.hard):
            yield f"ulimit {limit.name}: {problem}"
    for name in sorted(container.sysctls):
        if problem := sysctl_problem(name):
            yield f"sysctl {name}: {problem}"
    for name in sorted(container.annotations):
        if problem := annotation_problem(name):
            yield f"annotation {name}: {problem}"
    for device in container.devices:
        if problem := device_problem(device.source, device.target, device.permissions or "rwm"):
            yield f"device {device.source}: {problem}"
    if problem := seccomp_problem(container.seccomp_profile):
        yield problem
    if container.shm_size_bytes < 0:
        yield "its shm_size is negative"
    if not 0 <= container.oom_score_adj <= OOM_SCORE_ADJ_MAX:
        yield f"its oom_score_adj {container.oom_score_adj} is not between 0 and {OOM_SCORE_ADJ_MAX}"
    if container.domainname and not _DOMAIN.fullmatch(container.domainname):
        yield f"{container.domainname!r} is not a domain name"
    if container.apparmor_profile and not _PROFILE.fullmatch(container.apparmor_profile):
        yield f"{container.apparmor_profile!r} is not the name of a profile of AppArmor"
