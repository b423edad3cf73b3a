"""Single settings of a container as the OCI runtime specification has them: limits, kernel settings, devices. Pure.

What they may say is in proto/container_rules.py; it is checked here again, whoever wrote the spec.
"""

from __future__ import annotations

from typing import Any

from proto import objects_pb2
from proto.container_rules import OOM_SCORE_ADJ_MAX, annotation_problem, sysctl_problem, ulimit_problem
from runtime.errors import InvalidRequest
from runtime.model import Device

NO_LIMIT = (1 << 64) - 1  # RLIM_INFINITY
# As users expect: ping and low ports without privileges, in a network namespace of their own.
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def sysctls(spec: objects_pb2.ContainerSpec) -> dict[str, str]:
    """`linux.sysctl`; raises InvalidRequest on one that is the whole host's."""
    for name in spec.sysctls:
        if problem := sysctl_problem(name):
            raise InvalidRequest(f"sysctl {name}: {problem}")
    # runc, too, says the domain by this setting of the UTS namespace: its specification has no other word for it.
    domain = {"kernel.domainname": spec.domainname} if spec.domainname else {}
    return {**({} if spec.host_network else SYSCTLS), **spec.sysctls, **domain}


def limits(spec: objects_pb2.ContainerSpec) -> list[dict[str, Any]]:
    """`process.rlimits`; raises InvalidRequest."""
    found = []
    for limit in spec.ulimits:
        if problem := ulimit_problem(limit.name, limit.soft, limit.hard):
            raise InvalidRequest(f"ulimit {limit.name}: {problem}")
        soft, hard = (NO_LIMIT if number == -1 else number for number in (limit.soft, limit.hard))
        found.append({"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard})
    return found


def own_annotations(spec: objects_pb2.ContainerSpec) -> dict[str, str]:
    """Raises InvalidRequest on names that the container runtime reads."""
    for name in spec.annotations:
        if problem := annotation_problem(name):
            raise InvalidRequest(f"annotation {name}: {problem}")
    return dict(spec.annotations)


def oom_score(spec: objects_pb2.ContainerSpec) -> dict[str, int]:
    """`process.oomScoreAdj`, if any; raises InvalidRequest."""
    if not 0 <= spec.oom_score_adj <= OOM_SCORE_ADJ_MAX:
        raise InvalidRequest(f"oom_score_adj {spec.oom_score_adj} is not between 0 and {OOM_SCORE_ADJ_MAX}")
    return {"oomScoreAdj": spec.oom_score_adj} if spec.oom_score_adj else {}


def device_nodes(devices: tuple[Device, ...]) -> list[dict[str, Any]]:
    """`linux.devices`."""
    return [
        {
            "path": device.target,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        }
        for device in devices
    ]


def device_rules(devices: tuple[Device, ...]) -> list[dict[str, Any]]:
    """What `linux.resources.devices` has beside the rules of every container."""
    return [
        {
            "allow": True,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "access": device.permissions,
        }
        for device in devices
    ]
