"""Builds the OCI runtime specification that Docker's users expect of a container. Pure.

Format: https://github.com/opencontainers/runtime-spec, version 1.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proto import objects_pb2
from proto.container_rules import UNCONFINED
from runtime import (
    capabilities,
    container_settings,
    kernel_shares,
    oci_mounts,
    seccomp,
    seccomp_profile,
    signals,
)
from runtime.cgroup import CgroupHost
from runtime.errors import InvalidRequest
from runtime.model import ContainerRequest, ImageConfig
from runtime.users import ProcessUser

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PIDS_DEFAULT = 4096
SHIM_GROUP_ANNOTATION = "io.containerd.runc.v2.group"


@dataclass(frozen=True)
class HostFacts:
    """What of the host the specification depends on."""

    architecture: str  # "amd64" or "arm64"
    cgroup: CgroupHost
    cgroup_parent: str
    capabilities: tuple[str, ...] = capabilities.ALL  # that the kernel lets the daemon give
    seccomp: bool = True
    apparmor: bool = False
    init_path: Path | None = None


def build(request: ContainerRequest, image: ImageConfig, user: ProcessUser, host: HostFacts) -> dict[str, Any]:
    """The whole specification; raises InvalidRequest where the request cannot be met."""
    spec = request.spec
    hostname = request.hostname or request.id[:12]
    kept = capabilities.effective(spec.cap_add, spec.cap_drop, host.capabilities)
    annotations = container_settings.own_annotations(spec)
    if request.shim_group:
        annotations[SHIM_GROUP_ANNOTATION] = request.shim_group
    init = host.init_path if spec.init else None
    if spec.init and init is None:
        raise InvalidRequest("init: true needs the program tini on the host (Debian package: tini)")
    linux: dict[str, Any] = {
        "namespaces": _namespaces(request, host),
        "cgroupsPath": f"/{host.cgroup_parent.strip('/')}/{request.id}",
        "resources": resources(request.resources, host.cgroup, spec.shares),
        "maskedPaths": oci_mounts.MASKED_PATHS,
        "readonlyPaths": oci_mounts.READ_ONLY_PATHS,
        "sysctl": container_settings.sysctls(spec),
    }
    if request.devices:
        linux["devices"] = container_settings.device_nodes(request.devices)
        linux["resources"]["devices"] += container_settings.device_rules(request.devices)
    if (profile := _seccomp(spec, host, kept)) is not None:
        linux["seccomp"] = profile
    return {
        "ociVersion": "1.0.2",
        "process": _process(request, image, user, kept, hostname, host),
        "root": {"path": "rootfs", "readonly": spec.read_only},
        "hostname": hostname,
        "mounts": oci_mounts.base_mounts(host.cgroup.version, spec.shm_size_bytes)
        + oci_mounts.task_mounts(request.mounts, request.files, init),
        "annotations": annotations,
        "linux": linux,
    }


def _seccomp(spec: objects_pb2.ContainerSpec, host: HostFacts, kept: Iterable[str]) -> dict[str, Any] | None:
    """The filter of system calls; None: none. Raises InvalidRequest."""
    if spec.seccomp_profile == UNCONFINED:
        return None
    if not spec.seccomp_profile:
        return seccomp.default_profile(host.architecture, tuple(kept)) if host.seccomp else None
    if not host.seccomp:
        raise InvalidRequest("security_opt seccomp: this host's kernel cannot filter system calls")
    return seccomp_profile.from_docker(spec.seccomp_profile, host.architecture, frozenset(kept))


def arguments(spec: objects_pb2.ContainerSpec, image: ImageConfig) -> list[str]:
    """Entrypoint and command: one given in the spec replaces the image's, and an entrypoint given drops
    the image's command, which goes with the image's entrypoint. Raises InvalidRequest if both are empty."""
    entrypoint = list(spec.entrypoint.values) if spec.HasField("entrypoint") else list(image.entrypoint)
    if spec.HasField("command"):
        command = list(spec.command.values)
    else:
        command = [] if spec.HasField("entrypoint") else list(image.command)
    if not entrypoint + command:
        raise InvalidRequest(f"image {spec.image} has no command: give the service a command or entrypoint")
    return entrypoint + command


def environment(
    image: ImageConfig,
    extra: Mapping[str, str],
    own: Mapping[str, str],
    *,
    home: str,
    hostname: str,
    tty: bool,
) -> list[str]:
    """ "NAME=value" lines; later sources win: defaults, image, what the host adds, the service's own."""
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        merged["TERM"] = "xterm"
    merged |= dict(_pair(line) for line in image.environment)
    merged |= dict(extra) | dict(own)
    merged.setdefault("HOME", home)
    for name in merged:
        if not name or "=" in name or "\0" in name + merged[name]:
            raise InvalidRequest(f"environment variable {name!r}: a name is not empty and has no = or NUL")
    return [f"{name}={value}" for name, value in merged.items()]


def stop_signal(spec: objects_pb2.ContainerSpec, image: ImageConfig) -> int:
    """The number of the signal that asks the container to end."""
    return signals.number_of(spec.stop_signal or image.stop_signal or "SIGTERM")


def resources(
    wanted: objects_pb2.Resources, host: CgroupHost, shares: objects_pb2.KernelShares | None = None
) -> dict[str, Any]:
    """`linux.resources`; raises InvalidRequest on limits that contradict each other or are too small."""
    shares = shares or objects_pb2.KernelShares()
    result: dict[str, Any] = {"devices": oci_mounts.device_rules()}
    if memory := kernel_shares.memory(wanted, shares, host):
        result["memory"] = memory
    if cpu := kernel_shares.cpu(wanted, shares, host):
        result["cpu"] = cpu
    if wanted.pids_limit >= 0:
        result["pids"] = {"limit": wanted.pids_limit or PIDS_DEFAULT}
    return result


def _namespaces(request: ContainerRequest, host: HostFacts) -> list[dict[str, str]]:
    kinds = ["pid", "ipc", "uts", "mount"] + (["cgroup"] if host.cgroup.version == "v2" else [])
    entries = [{"type": kind} for kind in kinds]
    if request.network_namespace is not None:
        entries.append({"type": "network", "path": str(request.network_namespace)})
    elif not request.spec.host_network:
        entries.append({"type": "network"})
    return entries


def _process(
    request: ContainerRequest,
    image: ImageConfig,
    user: ProcessUser,
    kept: Iterable[str],
    hostname: str,
    host: HostFacts,
) -> dict[str, Any]:
    spec = request.spec
    arguments_ = arguments(spec, image)
    if spec.init:
        # Where it is not number 1, those whose parents have gone come to it only if it asks for them (tini's -s).
        first = request.joined is None or "pid" not in request.joined.kinds
        arguments_ = [oci_mounts.INIT_TARGET, *([] if first else ["-s"]), "--", *arguments_]
    process: dict[str, Any] = {
        "terminal": spec.tty,
        "user": user_entry(user),
        "args": arguments_,
        "env": environment(
            image, request.environment, spec.environment, home=user.home, hostname=hostname, tty=spec.tty
        ),
        "cwd": working_dir(spec.working_dir or image.working_dir),
        "capabilities": capability_sets(kept, user.uid),
        "noNewPrivileges": spec.no_new_privileges,
    }
    if limits := container_settings.limits(spec):
        process["rlimits"] = limits
    if spec.apparmor_profile:
        if not host.apparmor:
            raise InvalidRequest(f"security_opt apparmor:{spec.apparmor_profile}: this host has no AppArmor")
        process["apparmorProfile"] = spec.apparmor_profile
    process |= container_settings.oom_score(spec)
    if spec.tty:
        process["consoleSize"] = {"width": 80, "height": 24}
    return process


def user_entry(user: ProcessUser) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}


def capability_sets(kept: Iterable[str], uid: int) -> dict[str, list[str]]:
    """Root has them; another user may only gain them through a program that root owns and marked so."""
    names = list(kept)
    if uid == 0:
        return {"bounding": names, "effective": names, "permitted": names}
    return {"bounding": names, "effective": [], "permitted": []}


def working_dir(text: str) -> str:
    """The process's folder; raises InvalidRequest where it is not absolute."""
    if not text:
        return "/"
    if not text.startswith("/"):
        raise InvalidRequest(f"working_dir {text!r}: it must be an absolute path in the container")
    return text


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value
