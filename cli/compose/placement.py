"""`deploy` of a service and the older keys that say the same: replicas, resources, restart, placement."""

from __future__ import annotations

import re

from cli.compose import values
from cli.compose.devices import check_devices, read_reserved
from cli.compose.kinds import read_mode
from cli.compose.placing import read_per_node_max, read_preferences
from cli.compose.reader import Field, Reader
from cli.compose.rollout import read_update
from proto import objects_pb2

REPLICAS_MAX = 10_000
MEMORY_BYTES_MIN = 6 << 20  # as Docker: less does not start a container
RESTART_DELAY_MS = 1_000

_KEYS = frozenset(
    {
        "mode",
        "replicas",
        "resources",
        "placement",
        "restart_policy",
        "labels",
        "endpoint_mode",
        "update_config",
        "rollback_config",
    }
)
CONSTRAINT = re.compile(r"(node\.[A-Za-z0-9_./-]+)\s*(==|!=)\s*(\S.*)")
_RESTART = {
    "any": objects_pb2.RestartPolicy.CONDITION_ANY,
    "on-failure": objects_pb2.RestartPolicy.CONDITION_ON_FAILURE,
    "none": objects_pb2.RestartPolicy.CONDITION_NONE,
}
_ENDPOINT_MODES = {"vip": objects_pb2.ENDPOINT_MODE_VIP, "dnsrr": objects_pb2.ENDPOINT_MODE_DNSRR}
_RESTART_WORDS = {"always": "any", "unless-stopped": "any", "no": "none", "on-failure": "on-failure"}


def read_deploy(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> dict[str, str]:
    """Fills `spec` and returns the service's own labels."""
    entries = reader.known_entries(field, _KEYS)
    if "mode" in entries:
        read_mode(reader, entries["mode"], spec)
    if "endpoint_mode" in entries:
        vip = objects_pb2.ENDPOINT_MODE_VIP
        spec.endpoint_mode = reader.choice(entries["endpoint_mode"], _ENDPOINT_MODES, vip)
    if "replicas" in entries:
        spec.replicas = reader.integer(entries["replicas"], 0, REPLICAS_MAX)
    if "resources" in entries:
        _resources(reader, entries["resources"], spec.resources)
    if "placement" in entries:
        _placement(reader, entries["placement"], spec)
    if "restart_policy" in entries:
        _restart_policy(reader, entries["restart_policy"], spec.restart)
    if "update_config" in entries:
        read_update(reader, entries["update_config"], spec.update)
    if "rollback_config" in entries:
        read_update(reader, entries["rollback_config"], spec.rollback, back=True)
    return reader.labels(entries["labels"]) if "labels" in entries else {}


def read_restart(reader: Reader, field: Field, policy: objects_pb2.RestartPolicy) -> None:
    """`restart`: no, always, unless-stopped, on-failure or on-failure:ATTEMPTS."""
    text = reader.text(field)
    name, colon, attempts = text.partition(":")
    name = "no" if name in ("no", "false") else name
    if text and (name not in _RESTART_WORDS or (colon and name != "on-failure")):
        reader.refuse(field, f"{text!r} is not no, always, unless-stopped, on-failure or on-failure:3")
        return
    policy.condition = _RESTART[_RESTART_WORDS.get(name, "any")]
    if colon:
        if not attempts.isascii() or not attempts.isdigit() or not 1 <= int(attempts) <= 1_000_000:
            reader.refuse(field, f"{attempts!r} is not a number of attempts")
            return
        policy.max_attempts = int(attempts)


def read_limits(reader: Reader, entries: dict[str, Field], resources: objects_pb2.Resources) -> None:
    """The service's own mem_limit, mem_reservation, cpus and pids_limit, where deploy does not say it."""
    for key, name in (
        ("mem_limit", "memory_limit_bytes"),
        ("mem_reservation", "memory_reserved_bytes"),
        ("cpus", "cpu_limit_millis"),
        ("pids_limit", "pids_limit"),
    ):
        if key not in entries:
            continue
        field = entries[key]
        if getattr(resources, name):
            reader.refuse(field, "is said in deploy.resources too; keep one of the two")
        elif key == "cpus":
            resources.cpu_limit_millis = reader.parsed(field, values.cpu_millis, 0)
        elif key == "pids_limit":
            resources.pids_limit = _pids(reader, field)
        else:
            setattr(resources, name, reader.size_bytes(field, low=MEMORY_BYTES_MIN))


def check_resources(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    """What is reserved must fit below the limit."""
    if 0 < resources.memory_limit_bytes < resources.memory_reserved_bytes:
        reader.refuse(field, "reserves more memory than its limit")
    if 0 < resources.cpu_limit_millis < resources.cpu_reserved_millis:
        reader.refuse(field, "reserves more CPU than its limit")
    check_devices(reader, field, resources)


def _pids(reader: Reader, field: Field) -> int:
    number = reader.integer(field, -1, 4_194_304, otherwise=1)
    if number == 0:
        reader.refuse(field, "0 allows no process at all; -1 sets no limit")
    return number


def _resources(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    entries = reader.known_entries(field, frozenset({"limits", "reservations"}))
    if "limits" in entries:
        limits = reader.known_entries(entries["limits"], frozenset({"cpus", "memory", "pids"}))
        if "cpus" in limits:
            resources.cpu_limit_millis = reader.parsed(limits["cpus"], values.cpu_millis, 0)
        if "memory" in limits:
            resources.memory_limit_bytes = reader.size_bytes(limits["memory"], low=MEMORY_BYTES_MIN)
        if "pids" in limits:
            resources.pids_limit = _pids(reader, limits["pids"])
    if "reservations" in entries:
        hints = {"generic_resources": "devices that hosts have go under devices"}
        reserved = reader.known_entries(entries["reservations"], frozenset({"cpus", "memory", "devices"}), hints)
        if "cpus" in reserved:
            resources.cpu_reserved_millis = reader.parsed(reserved["cpus"], values.cpu_millis, 0)
        if "memory" in reserved:
            resources.memory_reserved_bytes = reader.size_bytes(reserved["memory"])
        if "devices" in reserved:
            read_reserved(reader, reserved["devices"], resources)


def _placement(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    entries = reader.known_entries(field, frozenset({"constraints", "preferences", "max_replicas_per_node"}))
    if "preferences" in entries:
        read_preferences(reader, entries["preferences"], spec.placement)
    if "max_replicas_per_node" in entries:
        read_per_node_max(reader, entries["max_replicas_per_node"], spec.placement)
    if "constraints" not in entries:
        return
    for each, text in reader.texts(entries["constraints"]):
        match = CONSTRAINT.fullmatch(text.strip())
        if match is None:
            reader.refuse(each, f'{text!r} is not a constraint; write it like "node.labels.disk == ssd"')
        else:
            spec.constraints.append(f"{match[1]} {match[2]} {match[3].strip()}")


def _restart_policy(reader: Reader, field: Field, policy: objects_pb2.RestartPolicy) -> None:
    entries = reader.known_entries(field, frozenset({"condition", "delay", "max_attempts", "window"}))
    if "condition" in entries:
        text = reader.text(entries["condition"])
        if text not in _RESTART:
            reader.refuse(entries["condition"], f"{text!r} is not any, on-failure or none")
        else:
            policy.condition = _RESTART[text]
    if "delay" in entries:
        policy.delay_ms = reader.duration_ms(entries["delay"])
    if "max_attempts" in entries:
        policy.max_attempts = reader.integer(entries["max_attempts"], 0, 1_000_000)
    if "window" in entries:
        policy.window_ms = reader.duration_ms(entries["window"])
