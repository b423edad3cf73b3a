"""What differs between two versions of a service, in words for a person. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from daemon.deploying.device_checks import device_changes
from daemon.deploying.kind_words import kind_changes
from daemon.deploying.lifecycle_checks import lifecycle_changes
from daemon.deploying.placement_checks import placement_changes
from daemon.deploying.probe_checks import probe_changes
from daemon.deploying.sharing_checks import sharing_changes
from daemon.orchestration.quantities import bytes_text, cpu_text, duration_text
from daemon.orchestration.task_files import kind_word
from proto import objects_pb2 as objects

VALUE_CHARACTERS_MAX = 60
ROLLOUT_FIELDS: dict[Literal["update", "rollback", "rollout"], str] = {
    "update": "how it is updated",
    "rollback": "how it is rolled back",
    "rollout": "rollout strategy",
}
SHARES = {
    "cpus": "cores",
    "cpu_shares": "CPU shares",
    "cpu_period_us": "CPU period in us",
    "swap_bytes": "bytes of swap",
}
_SECRET = re.compile(r"PASS|TOKEN|SECRET|KEY|CREDENTIAL|AUTH|PRIVATE", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]*:[^/\s]*@", re.IGNORECASE)


def spec_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why tasks must be replaced; empty where only what tasks do not see differs."""
    was, now = as_tasks_see(before), as_tasks_see(after)
    if was == now:
        return []
    old, new = before.container, after.container
    reasons = []
    if old.image != new.image:
        reasons.append(f"image {old.image} -> {new.image}")
    reasons += _list_change("entrypoint", old, new)
    reasons += _list_change("command", old, new)
    reasons += map_changes("environment", old.environment, new.environment, hide_secrets=True)
    if reasons and _without_usual(was) == _without_usual(now):
        return reasons  # mostly it is that, and to ask for all else is most of the work
    reasons += _scalar_changes(old, new)
    reasons += _resource_changes(before.resources, after.resources)
    reasons += _other_changes(before, after)
    reasons += kind_changes(before, after)
    return reasons or ["its settings changed"]


def map_changes(
    what: str, before: Mapping[str, str], after: Mapping[str, str], hide_secrets: bool = False
) -> list[str]:
    """`environment LOG: info -> debug`, `... added`, `... removed`; sorted by key. Values that look secret, by
    their key or as a URL with a password, are not shown."""
    if not before and not after:
        return []
    reasons = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        secret = hide_secrets and (_SECRET.search(key) or any(_has_password(value or "") for value in (old, new)))
        if old is None:
            reasons.append(f"{what} {key} added" if secret else f"{what} {key} added: {_short(new)}")
        elif new is None:
            reasons.append(f"{what} {key} removed")
        else:
            reasons.append(f"{what} {key} changed" if secret else f"{what} {key}: {_short(old)} -> {_short(new)}")
    return reasons


def _has_password(value: str) -> bool:
    # The pattern is quadratic in a long word, so it looks only where there is something to find.
    return "://" in value and _URL_WITH_PASSWORD.search(value) is not None


def balancing_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why connections go elsewhere from now on, for which no task is replaced."""
    reasons = []
    if before.balance != after.balance:
        old, new = (_balance(spec.balance) for spec in (before, after))
        reasons.append(f"balancing {old} -> {new}" if old != new else "weights of balancing changed")
    if before.endpoint_mode != after.endpoint_mode:
        reasons.append(f"endpoint mode {_endpoint_mode(before)} -> {_endpoint_mode(after)}")
    if before.policy != after.policy or before.HasField("policy") != after.HasField("policy"):
        reasons.append("policy changed")
    return reasons + _set_changes("floating address", before.floating_addresses, after.floating_addresses)


def says_rollout(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know these settings would go another way than they say."""
    return any(spec.HasField(name) for name in ROLLOUT_FIELDS)


def rollout_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why later changes go another way, for which no task is replaced."""
    return [
        f"{ROLLOUT_FIELDS[name]} changed"
        for name in ROLLOUT_FIELDS
        if getattr(before, name) != getattr(after, name) or before.HasField(name) != after.HasField(name)
    ]


def _balance(balance: objects.Balance) -> str:
    policy = objects.BalancePolicy.Name(balance.policy).removeprefix("BALANCE_POLICY_").lower().replace("_", "-")
    return policy + (", local first" if balance.local_first else "")


def _endpoint_mode(spec: objects.ServiceSpec) -> str:
    return objects.EndpointMode.Name(spec.endpoint_mode).removeprefix("ENDPOINT_MODE_").lower()


def as_tasks_see(spec: objects.ServiceSpec) -> objects.ServiceSpec:
    """What of a spec its tasks depend on: where two versions are the same in it, no task is replaced."""
    copy = objects.ServiceSpec()
    copy.CopyFrom(spec)
    for name in (
        "replicas",
        "balance",
        "endpoint_mode",
        "floating_addresses",
        "policy",
        "job",
        "schedule",
        "disruption_budget",
        "autoscale",
        "precedence",
    ):
        copy.ClearField(name)
    for field in ROLLOUT_FIELDS:
        copy.ClearField(field)
    copy.container.ClearField("pull_policy")
    return copy


def _without_usual(spec: objects.ServiceSpec) -> objects.ServiceSpec:
    """Takes away what has been compared by then; `spec` is a copy."""
    for name in ("image", "entrypoint", "command", "environment"):
        spec.container.ClearField(name)
    return spec


def _list_change(name: str, old: objects.ContainerSpec, new: objects.ContainerSpec) -> list[str]:
    def words(spec: Any) -> str:
        return _short(" ".join(getattr(spec, name).values)) if spec.HasField(name) else "the image's"

    same = getattr(old, name) == getattr(new, name) and old.HasField(name) == new.HasField(name)  # type: ignore[arg-type]
    return [] if same else [f"{name} {words(old)} -> {words(new)}"]


_SCALARS = (
    "user",
    "working_dir",
    "hostname",
    "read_only",
    "no_new_privileges",
    "stop_signal",
    "init",
    "tty",
    "stdin_open",
    "domainname",
    "oom_score_adj",
    "apparmor_profile",
)


def _scalar_changes(old: objects.ContainerSpec, new: objects.ContainerSpec) -> list[str]:
    reasons = []
    for name in _SCALARS:
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            reasons.append(f"{name.replace('_', ' ')} {_value(was)} -> {_value(now)}")
    if old.stop_grace_ms != new.stop_grace_ms:
        reasons.append(f"stop grace {duration_text(old.stop_grace_ms)} -> {duration_text(new.stop_grace_ms)}")
    reasons += _set_changes("capability added", old.cap_add, new.cap_add)
    reasons += _set_changes("capability dropped", old.cap_drop, new.cap_drop)
    reasons += map_changes("container label", old.labels, new.labels)
    reasons += map_changes("annotation", old.annotations, new.annotations)
    reasons += map_changes("sysctl", old.sysctls, new.sysctls)
    reasons += _set_changes("ulimit", old.ulimits, new.ulimits, lambda each: f"{each.name}={each.soft}:{each.hard}")
    reasons += _set_changes("group", old.group_add, new.group_add)
    reasons += _set_changes("device", old.devices, new.devices, lambda each: f"{each.source} at {each.target}")
    if old.shm_size_bytes != new.shm_size_bytes:
        was, now = (bytes_text(each.shm_size_bytes) if each.shm_size_bytes else "usual" for each in (old, new))
        reasons.append(f"shared memory {was} -> {now}")
    if old.seccomp_profile != new.seccomp_profile:
        reasons.append("filter of system calls changed")
    reasons += _set_changes("mount", old.mounts, new.mounts, _mount)
    reasons += file_changes(old, new)
    reasons += lifecycle_changes(old, new) + sharing_changes(old, new)
    was, now = old.isolation, new.isolation
    if was.runtime != now.runtime:
        reasons.append(f"runtime {was.runtime or 'runc'} -> {now.runtime or 'runc'}")
    if was.user_namespace != now.user_namespace:
        reasons.append(f"user namespace {_value(was.user_namespace)} -> {_value(now.user_namespace)}")
    for name in SHARES:
        share, other = getattr(old.shares, name), getattr(new.shares, name)
        if share != other:
            reasons.append(f"{SHARES[name]} {share or 'none'} -> {other or 'none'}")
    if old.logging != new.logging or old.HasField("logging") != new.HasField("logging"):
        reasons.append("logging changed")
    if old.healthcheck != new.healthcheck or old.HasField("healthcheck") != new.HasField("healthcheck"):
        reasons.append("health check changed")
    return reasons + probe_changes(old, new)


def file_changes(old: objects.ContainerSpec, new: objects.ContainerSpec) -> list[str]:
    """`secret key: version 1 -> 2`, and what differs of where and how the files are."""
    if old.files == new.files:
        return []
    reasons = []
    known = {(file.kind, file.name, file.target): file for file in old.files}
    for file in new.files:
        before = known.pop((file.kind, file.name, file.target), None)
        word = f"{kind_word(file.kind)} {file.name}"
        if before is None:
            reasons.append(f"{word} added at {file.target}")
        elif before.version != file.version:
            reasons.append(f"{word}: version {before.version} -> {file.version}")
        elif before.file_id != file.file_id:
            reasons.append(f"{word} was made anew")
        elif before != file:
            reasons.append(f"{word}: owner or mode changed")
    return reasons + [f"{kind_word(file.kind)} {file.name} removed from {file.target}" for file in known.values()]


def _resource_changes(old: objects.Resources, new: objects.Resources) -> list[str]:
    if old == new:
        return []
    reasons = []
    for name, words, text in (
        ("cpu_limit_millis", "CPU limit", cpu_text),
        ("memory_limit_bytes", "memory limit", bytes_text),
        ("cpu_reserved_millis", "CPU reservation", cpu_text),
        ("memory_reserved_bytes", "memory reservation", bytes_text),
        ("pids_limit", "process limit", str),
    ):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            reasons.append(f"{words} {text(was) if was else 'none'} -> {text(now) if now else 'none'}")
    return reasons + device_changes(old, new)


def _other_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    reasons = _set_changes("constraint", before.constraints, after.constraints)
    reasons += placement_changes(before, after)
    reasons += _set_changes("port", before.ports, after.ports, _port)
    reasons += _set_changes("network", _networks(before), _networks(after))
    for what in ("networks", "volumes"):
        was, now = (getattr(spec, f"external_{what}") for spec in (before, after))
        moved = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        reasons += [f"{what[:-1]} {name} is another one of that name" for name in moved]
    reasons += _set_changes("dependency", before.depends_on, after.depends_on, _dependency)
    if before.restart != after.restart:
        reasons.append("restart policy changed")
    old, new = before.container, after.container
    reasons += _set_changes("DNS server", old.dns_servers, new.dns_servers)
    reasons += _set_changes("search domain", old.dns_search, new.dns_search)
    reasons += _set_changes("DNS option", old.dns_options, new.dns_options)
    reasons += _set_changes("extra host", old.extra_hosts, new.extra_hosts, _extra_host)
    if before.network_aliases != after.network_aliases:
        reasons.append("network aliases changed")
    return reasons


def _networks(spec: objects.ServiceSpec) -> list[str]:
    """As in a file, where network_mode says what a service without networks has."""
    return list(spec.networks) or ["host" if spec.container.host_network else "none"]


def _set_changes(what: str, before: Any, after: Any, words: Callable[[Any], str] = str) -> list[str]:
    if before == after:  # nearly always, and a deploy asks it a dozen times for every service
        return []
    old, new = {words(one) for one in before}, {words(one) for one in after}
    return [f"{what} {value} removed" for value in sorted(old - new)] + [
        f"{what} {value} added" for value in sorted(new - old)
    ]


def _extra_host(host: objects.HostAddress) -> str:
    return f"{host.name}={host.address}"


def _mount(mount: objects.Mount) -> str:
    kind = objects.Mount.Kind.Name(mount.kind).removeprefix("KIND_").lower()
    source = f"{mount.source} at " if mount.source else ""
    extra = f", {bytes_text(mount.tmpfs_size_bytes)}" if mount.tmpfs_size_bytes else ""
    mode = f", mode {mount.tmpfs_mode:o}" if mount.tmpfs_mode else ""
    extra += f", its {mount.subpath}" if mount.subpath else ""
    extra += ", not filled" if mount.no_copy else ""
    return f"{kind} {source}{mount.target}{' (read only)' if mount.read_only else ''}{extra}{mode}"


def _port(port: objects.PortSpec) -> str:
    where = f" at {port.host_ip}" if port.host_ip else ""
    where += " of the task's host" if port.mode == objects.PortSpec.MODE_HOST else ""
    published = f"{port.published}{where} to " if port.published else ""
    return f"{published}{port.target}/{port.protocol}"


def _dependency(dependency: objects.Dependency) -> str:
    condition = objects.Dependency.Condition.Name(dependency.condition).removeprefix("CONDITION_").lower()
    return f"on {dependency.service} ({condition})"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _short(str(value)) if value else "none"


def _short(text: str | None) -> str:
    shown = " ".join((text or "").split())
    if not shown:
        return '""'
    return shown if len(shown) <= VALUE_CHARACTERS_MAX else shown[: VALUE_CHARACTERS_MAX - 3] + "..."
