"""What surrounds a service's containers, in words for `fairway show`."""

from __future__ import annotations

from collections.abc import Iterable

from cli import words
from proto import objects_pb2
from proto.log_receivers import driver_name

COMMAND_CHARACTERS_MAX = 60


def network_words(spec: objects_pb2.ServiceSpec) -> str:
    """ "default, shared (another app's)" """
    return ", ".join(f"{name} (another app's)" if name in spec.external_networks else name for name in spec.networks)


def init_words(init: objects_pb2.InitTask) -> str:
    """ "migrate:1 up", "./check" with the service's own image"""
    return " ".join(filter(None, [init.image, _short([*init.entrypoint.values, *init.command.values])]))


def hook_words(container: objects_pb2.ContainerSpec) -> str:
    """ "post_start ./warm, pre_stop ./drain" """
    hooks = [("post_start", hook) for hook in container.post_start] + [
        ("pre_stop", hook) for hook in container.pre_stop
    ]
    return ", ".join(f"{when} {_short(hook.command)}" for when, hook in hooks)


def logging_words(container: objects_pb2.ContainerSpec) -> str:
    """ "syslog, at most 3 files, files of 10M, compressed"; empty where the hosts' own bounds hold"""
    if not container.HasField("logging"):
        return ""
    said = container.logging
    if said.driver == objects_pb2.Logging.DRIVER_NONE:
        return "not kept"
    parts = [
        driver_name(said.driver),
        f"at most {words.plural(said.files_max, 'file')}" if said.files_max else "",
        f"files of {words.size(said.size_bytes_max)}" if said.size_bytes_max else "",
        f"a new file after {words.duration(1_000 * said.age_s_max)}" if said.age_s_max else "",
        "compressed" if said.compress else "",
        f"{said.lines_per_s_max} lines a second" if said.lines_per_s_max else "",
        f"{words.size(said.bytes_per_s_max)} a second" if said.bytes_per_s_max else "",
    ]
    return ", ".join(filter(None, parts)) or "as the hosts say"


def share_words(shares: objects_pb2.KernelShares) -> str:
    """ "cores 0-3, 512 CPU shares, swap 32M" """
    swap = "unbounded" if shares.swap_bytes < 0 else words.size(shares.swap_bytes)
    parts = [
        f"cores {shares.cpus}" if shares.cpus else "",
        f"{shares.cpu_shares} CPU shares" if shares.cpu_shares else "",
        f"CPU period {shares.cpu_period_us} us" if shares.cpu_period_us else "",
        f"swap {swap}" if shares.swap_bytes else "",
    ]
    return ", ".join(filter(None, parts))


def isolation_words(isolation: objects_pb2.Isolation) -> str:
    """ "runtime crun, user namespace" """
    parts = [
        f"runtime {isolation.runtime}" if isolation.runtime else "",
        "user namespace" if isolation.user_namespace else "",
    ]
    return ", ".join(filter(None, parts))


def sharing_words(sharing: objects_pb2.Sharing) -> str:
    """ "processes and IPC of web" """
    shared = " and ".join(filter(None, ["processes" if sharing.processes else "", "IPC" if sharing.ipc else ""]))
    return f"{shared} of {sharing.processes or sharing.ipc}" if shared else ""


def _short(command: Iterable[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= COMMAND_CHARACTERS_MAX else text[: COMMAND_CHARACTERS_MAX - 3] + "..."
