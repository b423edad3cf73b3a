"""One service of a Compose file: a table of keys, each with the function that reads it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from cli.compose import (
    autoscale,
    container,
    extension,
    health,
    kinds,
    mounts,
    names,
    placement,
    ports,
    shares,
    task_files,
    values,
)
from cli.compose.devices import is_cdi_name, read_gpus, read_named
from cli.compose.environment import Surroundings, read_environment
from cli.compose.lifecycle import command_words, read_lifecycle
from cli.compose.pull_policy import read_pull_policy
from cli.compose.reader import Field, Reader
from cli.compose.refused import REFUSED
from proto import objects_pb2

STOP_GRACE_MS = 10_000
_PROFILE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

UNSUPPORTED: dict[str, str] = {
    **REFUSED,
}


@dataclasses.dataclass
class ServiceRead:
    """What a service's entry says, and where it refers to something else."""

    name: str
    field: Field
    spec: objects_pb2.ServiceSpec
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    network_fields: dict[str, Field] = dataclasses.field(default_factory=dict)
    dependency_fields: dict[str, Field] = dataclasses.field(default_factory=dict)
    volume_field: Field | None = None
    files: list[tuple[Field, objects_pb2.FileMount]] = dataclasses.field(default_factory=list)
    port_fields: list[tuple[Field, objects_pb2.PortSpec]] = dataclasses.field(default_factory=list)
    restart_said: bool = False
    profiles: frozenset[str] = frozenset()
    without_network: bool = False  # not even the app's default one
    optional: dict[str, Field] = dataclasses.field(default_factory=dict)  # dependencies it can do without
    sharing_fields: dict[str, Field] = dataclasses.field(default_factory=dict)  # by the service that it is beside


def read_service(reader: Reader, surroundings: Surroundings, name: str, below: Field) -> ServiceRead:
    """Reads one service; whatever is wrong becomes a problem."""
    spec = objects_pb2.ServiceSpec(replicas=1)
    spec.container.stop_grace_ms = STOP_GRACE_MS
    spec.restart.delay_ms = placement.RESTART_DELAY_MS
    spec.resources.SetInParent()
    service = ServiceRead(name, below, spec)
    entries = reader.known_entries(below, frozenset(_KEYS) | _TOGETHER, UNSUPPORTED)
    if "image" not in entries and ("build" not in reader.entries(below)):
        reader.refuse(below, "has no image")
    for key, read in _KEYS.items():
        if key in entries:
            read(reader, entries[key], service)
    for key, owner in (("pid", spec.container.sharing.processes), ("ipc", spec.container.sharing.ipc)):
        if owner:
            service.sharing_fields[owner] = entries[key]
    read_environment(reader, surroundings, entries, spec.container)
    read_lifecycle(reader, surroundings, entries, spec.container)
    _scale_and_deploy(reader, entries, service)
    _check_endpoint_mode(reader, service)
    return service


def _scale_and_deploy(reader: Reader, entries: dict[str, Field], service: ServiceRead) -> None:
    spec = service.spec
    replicas_said = False
    if "restart" in entries:  # before deploy, whose restart_policy wins as in Compose
        placement.read_restart(reader, entries["restart"], spec.restart)
    if "deploy" in entries:
        service.labels = placement.read_deploy(reader, entries["deploy"], spec)
        said = reader.entries(entries["deploy"])
        replicas_said = "replicas" in said
        service.restart_said = "restart_policy" in said
    service.restart_said |= "restart" in entries
    if "scale" in entries:
        scale = reader.integer(entries["scale"], 0, placement.REPLICAS_MAX)
        if replicas_said and scale != spec.replicas:
            reader.refuse(entries["scale"], "differs from deploy.replicas; keep one of the two")
        spec.replicas = scale
    kinds.finish_kind(reader, entries, spec)
    placement.read_limits(reader, entries, spec.resources)
    shares.read_shares(reader, entries, spec)
    placement.check_resources(reader, service.field, spec.resources)
    autoscale.finish_autoscale(reader, entries, spec, replicas_said or "scale" in entries)


def _image(reader: Reader, field_: Field, service: ServiceRead) -> None:
    text = reader.text(field_)
    if any(character.isspace() for character in text):
        reader.refuse(field_, f"{text!r} is not the name of an image")
    service.spec.container.image = text


def _command(reader: Reader, field_: Field, service: ServiceRead) -> None:
    if (words := command_words(reader, field_)) is not None:
        service.spec.container.command.CopyFrom(words)


def _entrypoint(reader: Reader, field_: Field, service: ServiceRead) -> None:
    if (words := command_words(reader, field_)) is not None:
        service.spec.container.entrypoint.CopyFrom(words)


def _working_dir(reader: Reader, field_: Field, service: ServiceRead) -> None:
    text = reader.text(field_)
    if text and not text.startswith("/"):
        reader.refuse(field_, f"{text!r} is not an absolute path in the container")
    service.spec.container.working_dir = text


def _hostname(reader: Reader, field_: Field, service: ServiceRead) -> None:
    text = reader.text(field_)
    if text and (len(text) > 63 or not all(_HOSTNAME.fullmatch(label) for label in text.split("."))):
        reader.refuse(field_, f"{text!r} is not a host name (letters, digits, - and ., at most 63 characters)")
    service.spec.container.hostname = text


def _capabilities(name: str) -> Callable[[Reader, Field, ServiceRead], None]:
    def read(reader: Reader, field_: Field, service: ServiceRead) -> None:
        target = getattr(service.spec.container, name)
        for each in reader.elements(field_):
            capability = reader.parsed(each, values.capability, "")
            if capability and capability not in target:
                target.append(capability)

    return read


def _platform(reader: Reader, field_: Field, service: ServiceRead) -> None:
    """OS[/ARCHITECTURE[/VARIANT]]: a constraint; hosts do not tell their variant."""
    system, *rest = reader.text(field_).lower().split("/")
    if system != "linux" or len(rest) > 2 or not all(_PROFILE.fullmatch(part) for part in rest):
        reader.refuse(field_, 'is not a platform that hosts have; write it like "linux/amd64"')
    elif rest:
        service.spec.constraints.append(f"node.platform.arch == {rest[0]}")


def _of_container(
    read: Callable[[Reader, Field, objects_pb2.ContainerSpec], None],
) -> Callable[[Reader, Field, ServiceRead], None]:
    return lambda reader, field_, service: read(reader, field_, service.spec.container)


def _devices(reader: Reader, field_: Field, service: ServiceRead) -> None:
    container.KEYS["devices"](reader, field_, service.spec.container)
    for each in reader.elements(field_):
        if each.is_text and is_cdi_name(reader.text(each)):
            read_named(reader, each, service.spec.resources)


def _stop_signal(reader: Reader, field_: Field, service: ServiceRead) -> None:
    service.spec.container.stop_signal = reader.parsed(field_, values.signal_name, "")


def _healthcheck(reader: Reader, field_: Field, service: ServiceRead) -> None:
    if (check := health.read_healthcheck(reader, field_)) is not None:
        service.spec.container.healthcheck.CopyFrom(check)


def _networks(reader: Reader, field_: Field, service: ServiceRead) -> None:
    listed = {text: each for each, text in reader.texts(field_) if text} if field_.is_list else None
    found = reader.entries(field_) if listed is None else listed
    for name, below in found.items():
        service.network_fields[name] = below
        if name not in service.spec.networks:
            service.spec.networks.append(name)
        if field_.is_mapping and not below.is_null:
            entries = reader.known_entries(
                below, frozenset({"aliases"}), {"ipv4_address": "addresses are given out by Fairway"}
            )
            if "aliases" in entries:
                aliases = [text for _, text in reader.texts(entries["aliases"]) if text]
                service.spec.network_aliases[name].values.extend(aliases)


def _network_mode(reader: Reader, field_: Field, service: ServiceRead) -> None:
    mode = reader.text(field_)
    if mode in ("host", "none"):
        service.without_network = True
        service.spec.container.host_network = mode == "host"
        if service.network_fields:
            reader.refuse(field_, f"{mode} and networks exclude each other")
    elif mode not in ("bridge", "default"):
        reader.refuse(field_, f"{mode!r} is none of bridge, host and none; tasks share no networks with each other")


_CONDITIONS = {
    "service_started": objects_pb2.Dependency.CONDITION_STARTED,
    "service_healthy": objects_pb2.Dependency.CONDITION_HEALTHY,
    "service_completed_successfully": objects_pb2.Dependency.CONDITION_COMPLETED,
}


def _depends_on(reader: Reader, field_: Field, service: ServiceRead) -> None:
    if field_.is_list:
        for each, text in reader.texts(field_):
            service.dependency_fields[text] = each
            service.spec.depends_on.append(objects_pb2.Dependency(service=text))
        return
    for name, below in reader.entries(field_).items():
        entries = reader.known_entries(below, frozenset({"condition", "required", "restart"}))
        condition = objects_pb2.Dependency.CONDITION_STARTED
        if "condition" in entries:
            condition = reader.choice(entries["condition"], _CONDITIONS, condition)
        if "required" in entries and not reader.boolean(entries["required"]):
            service.optional[name] = entries["required"]
        if "restart" in entries and reader.boolean(entries["restart"]):
            reader.unsupported(entries["restart"], "a service is not restarted with what it depends on")
        service.dependency_fields[name] = below
        service.spec.depends_on.append(objects_pb2.Dependency(service=name, condition=condition))


def _volumes(reader: Reader, field_: Field, service: ServiceRead) -> None:
    service.volume_field = field_
    mounts.read_volumes(reader, field_, service.spec.container)


def _profiles(reader: Reader, field_: Field, service: ServiceRead) -> None:
    for each, text in reader.texts(field_):
        if text and not _PROFILE.fullmatch(text):
            reader.refuse(each, f"{text!r} is not the name of a profile (letters, digits, _, . and -)")
    service.profiles = frozenset(text for _, text in reader.texts(field_) if text)


def _labels(reader: Reader, field_: Field, service: ServiceRead) -> None:
    service.spec.container.labels.update(reader.labels(field_))


def _flag(name: str) -> Callable[[Reader, Field, ServiceRead], None]:
    def read(reader: Reader, field_: Field, service: ServiceRead) -> None:
        setattr(service.spec.container, name, reader.boolean(field_))

    return read


def _user(reader: Reader, field_: Field, service: ServiceRead) -> None:
    service.spec.container.user = reader.text(field_)


def _grace(reader: Reader, field_: Field, service: ServiceRead) -> None:
    # 0 is what says nothing, and means the default; a millisecond is as good as none.
    service.spec.container.stop_grace_ms = max(1, reader.duration_ms(field_))


def _ports(reader: Reader, field_: Field, service: ServiceRead) -> None:
    service.port_fields = ports.read_ports(reader, field_, service.spec)


def _check_endpoint_mode(reader: Reader, service: ServiceRead) -> None:
    """As in Swarm: without a virtual address there is nothing that other hosts could send to."""
    if service.spec.endpoint_mode != objects_pb2.ENDPOINT_MODE_DNSRR:
        return
    for field_, port in service.port_fields:
        if port.published and port.mode == objects_pb2.PortSpec.MODE_INGRESS:
            reader.refuse(
                field_,
                f"publishes {port.published}/{port.protocol} on every host, which endpoint_mode dnsrr does not do; "
                "use mode: host, or endpoint_mode: vip",
            )


# `ports` stands before `expose`: an exposed port that is published as well is not listed twice.
_KEYS: dict[str, Callable[[Reader, Field, ServiceRead], None]] = {
    "image": _image,
    "command": _command,
    "entrypoint": _entrypoint,
    "user": _user,
    "platform": _platform,
    "pull_policy": _of_container(read_pull_policy),
    "working_dir": _working_dir,
    "hostname": _hostname,
    "read_only": _flag("read_only"),
    "init": _flag("init"),
    "tty": _flag("tty"),
    "stdin_open": _flag("stdin_open"),
    "cap_add": _capabilities("cap_add"),
    "cap_drop": _capabilities("cap_drop"),
    **{key: _of_container(read) for key, read in container.KEYS.items()},
    "devices": _devices,
    "gpus": lambda reader, field_, service: read_gpus(reader, field_, service.spec.resources),
    "stop_signal": _stop_signal,
    "stop_grace_period": _grace,
    "labels": _labels,
    "healthcheck": _healthcheck,
    "ports": _ports,
    "expose": lambda reader, field_, service: ports.read_expose(reader, field_, service.spec),
    "volumes": _volumes,
    "tmpfs": lambda reader, field_, service: mounts.read_tmpfs(reader, field_, service.spec.container),
    "configs": lambda reader, field_, service: task_files.read_mounts(reader, field_, "configs", service),
    "secrets": lambda reader, field_, service: task_files.read_mounts(reader, field_, "secrets", service),
    "networks": _networks,
    "network_mode": _network_mode,
    "dns": lambda reader, field_, service: names.read_dns(reader, field_, service.spec.container),
    "dns_search": lambda reader, field_, service: names.read_dns_search(reader, field_, service.spec.container),
    "dns_opt": lambda reader, field_, service: names.read_dns_options(reader, field_, service.spec.container),
    "extra_hosts": lambda reader, field_, service: names.read_extra_hosts(reader, field_, service.spec.container),
    "x-fairway": lambda reader, field_, service: extension.read_extension(reader, field_, service.spec),
    "depends_on": _depends_on,
    "profiles": _profiles,
}
# Keys whose meaning hangs together, read by `read_environment`, `read_lifecycle` and `_scale_and_deploy`.
_TOGETHER = frozenset(
    [
        "environment",
        "env_file",
        "post_start",
        "pre_stop",
        "deploy",
        "scale",
        "restart",
        "mem_limit",
        "mem_reservation",
        "cpus",
        "pids_limit",
        *shares.KEYS,
    ]
)
