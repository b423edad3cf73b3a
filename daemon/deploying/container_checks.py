"""What the settings of a container may say, before they reach a host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from proto import objects_pb2 as objects
from proto.container_rules import (
    CPU_PERIOD_US_MAX,
    CPU_PERIOD_US_MIN,
    CPU_SHARES_MAX,
    CPU_SHARES_MIN,
    LOG_AGE_S_MAX,
    LOG_AGE_S_MIN,
    LOG_BYTES_PER_S_MAX,
    LOG_FILES_MAX,
    LOG_LINES_PER_S_MAX,
    LOG_SIZE_BYTES_MAX,
    LOG_SIZE_BYTES_MIN,
    OOM_SCORE_ADJ_MAX,
    SHIM_PREFIX,
    annotation_problem,
    cores_problem,
    device_problem,
    runtime_problem,
    seccomp_problem,
    sysctl_problem,
    ulimit_problem,
)
from proto.log_receivers import driver_name, option_problem

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
    "post_start",
    "pre_stop",
    "init_tasks",
    "attached",
    "host_network",
)
# The same, of those that are messages of their own.
PARTS: tuple[Literal["logging", "probes", "shares", "isolation", "sharing"], ...] = (
    "logging",
    "probes",
    "shares",
    "isolation",
    "sharing",
)
ENTRIES_MAX = 256  # of each setting
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_PROFILE = re.compile(r"[!-~]{1,255}")


def says_settings(spec: objects.ServiceSpec) -> bool:
    """Whether hosts must know more than the first feature level to run it."""
    container = spec.container
    return (
        any(getattr(container, name) for name in SETTINGS)
        or any(map(container.HasField, PARTS))
        or any(mount.subpath or mount.no_copy for mount in container.mounts)
    )


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
    for mount in container.mounts:
        if mount.subpath and (mount.subpath.startswith("/") or ".." in mount.subpath.split("/")):
            yield f"the subpath {mount.subpath!r} at {mount.target} leads out of the volume"
    yield from _logging_problems(container.logging)
    yield from _share_problems(container.shares)
    yield from _user_namespace_problems(container)
    if container.isolation.runtime and (problem := runtime_problem(container.isolation.runtime)):
        yield problem
    if container.apparmor_profile and not _PROFILE.fullmatch(container.apparmor_profile):
        yield f"{container.apparmor_profile!r} is not the name of a profile of AppArmor"


def _user_namespace_problems(container: objects.ContainerSpec) -> Iterator[str]:
    if not container.isolation.user_namespace:
        return
    if container.host_network:
        yield "with a user namespace it cannot share its host's network, in which it would have no say"
    if container.domainname:
        yield "with a user namespace it cannot have a domainname"
    if container.isolation.runtime.startswith(SHIM_PREFIX):
        yield f"the shim {container.isolation.runtime} is not known to have user namespaces"


def _logging_problems(logging: objects.Logging) -> Iterator[str]:
    size_bytes = logging.size_bytes_max
    if size_bytes and not LOG_SIZE_BYTES_MIN <= size_bytes <= LOG_SIZE_BYTES_MAX:
        yield f"a file of its log is to have {size_bytes} bytes, not {LOG_SIZE_BYTES_MIN} to {LOG_SIZE_BYTES_MAX}"
    if logging.files_max > LOG_FILES_MAX:
        yield f"its log is to have {logging.files_max} files; at most {LOG_FILES_MAX} are possible"
    if logging.age_s_max and not LOG_AGE_S_MIN <= logging.age_s_max <= LOG_AGE_S_MAX:
        yield f"a file of its log is to be left after {logging.age_s_max} s, not {LOG_AGE_S_MIN} to {LOG_AGE_S_MAX}"
    driver = driver_name(logging.driver)
    if logging.options and not driver:
        yield "its logging has options of a receiver and none of the drivers that have one"
    for name, value in sorted(logging.options.items()):
        if driver and (problem := option_problem(driver, name, value)):
            yield f"its logging's {name} {problem}"
    if logging.lines_per_s_max > LOG_LINES_PER_S_MAX or logging.bytes_per_s_max > LOG_BYTES_PER_S_MAX:
        yield "its log is to have more lines or bytes a second than can be bounded"


def _share_problems(shares: objects.KernelShares) -> Iterator[str]:
    if shares.cpus and (problem := cores_problem(shares.cpus)):
        yield f"cpuset: {problem}"
    if shares.cpu_shares and not CPU_SHARES_MIN <= shares.cpu_shares <= CPU_SHARES_MAX:
        yield f"its cpu_shares {shares.cpu_shares} are not between {CPU_SHARES_MIN} and {CPU_SHARES_MAX}"
    if shares.cpu_period_us and not CPU_PERIOD_US_MIN <= shares.cpu_period_us <= CPU_PERIOD_US_MAX:
        yield f"its cpu_period {shares.cpu_period_us} is not between {CPU_PERIOD_US_MIN} and {CPU_PERIOD_US_MAX}"
    if shares.swap_bytes < -1:
        yield "its memswap_limit is negative"
