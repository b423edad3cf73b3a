"""What the values of the configuration may be: each check returns what is wrong with a value, in words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from daemon.identity.node_names import node_name_error
from proto.container_rules import runtime_problem
from proto.device_rules import is_kind, split_name

CHECK = "check"  # key of the check in a dataclass field's metadata

# A sockaddr_un holds 108 bytes, the last one is the end mark (unix(7)).
SOCKET_PATH_BYTES_MAX = 107


def _as_metadata(function: Callable[[Any], str | None]) -> Mapping[str, Callable[[Any], str | None]]:
    return {CHECK: function}


def address_error(text: str) -> str | None:
    """None where `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is not an IP address"
    return None


def unicast_address_error(text: str) -> str | None:
    """None where `text` is an IP address that another host could send to."""
    error = address_error(text)
    if error is not None:
        return error
    value = ipaddress.ip_address(text)
    if value.is_unspecified or value.is_multicast or text == "255.255.255.255":
        return f"{text} is no address of one host; give the address that the other hosts reach it by"
    return None


def between(least: int, most: int) -> Mapping[str, Callable[[Any], str | None]]:
    """A whole number from `least` to `most`, both included."""

    def check(value: int) -> str | None:
        return None if least <= value <= most else f"{value} is not between {least} and {most}"

    return _as_metadata(check)


def _absolute(path: Path | str) -> str | None:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        return f"{str(path)!r} is not an absolute path without '..'"
    return None


def _socket(path: Path) -> str | None:
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        return f"{str(path)!r} is too long: a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"
    return _absolute(path)


def _all_absolute(paths: tuple[str, ...]) -> str | None:
    return next((error for error in map(_absolute, paths) if error is not None), None)


def _dns_upstreams(addresses: tuple[str, ...]) -> str | None:
    if len(addresses) > 8:
        return f"{len(addresses)} servers are given; at most 8 are asked"
    return next((error for error in map(unicast_address_error, addresses) if error is not None), None)


def _device_names(names: tuple[str, ...]) -> str | None:
    wrong = next((name for name in names if not is_kind(name) and split_name(name) is None), None)
    return (
        None
        if wrong is None
        else f"{wrong!r} is neither a kind of device (vendor.com/class) nor one (vendor.com/class=name)"
    )


def _runtimes(values: tuple[str, ...]) -> str | None:
    return next((problem for name in values if (problem := runtime_problem(name))), None)


def _pattern(pattern: str, words: str) -> Mapping[str, Callable[[Any], str | None]]:
    expression = re.compile(pattern)

    def check(value: str) -> str | None:
        return None if expression.fullmatch(value) else f"{value!r} is not {words}"

    return _as_metadata(check)


address = _as_metadata(address_error)
unicast_address_or_empty = _as_metadata(lambda text: unicast_address_error(text) if text else None)
node_name_or_empty = _as_metadata(lambda text: node_name_error(text) if text else None)
either = _as_metadata(lambda _value: None)
port = between(1, 65_535)
absolute_path = _as_metadata(_absolute)
absolute_path_or_empty = _as_metadata(lambda text: _absolute(text) if text else None)
absolute_paths = _as_metadata(_all_absolute)
socket_path = _as_metadata(_socket)
dns_upstreams = _as_metadata(_dns_upstreams)
device_names = _as_metadata(_device_names)
runtimes = _as_metadata(_runtimes)
# containerd's rule for identifiers; they also become folder names.
containerd_name = _pattern(
    r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", "a name of letters and digits, joined by '.', '_' or '-'"
)
cgroup_parent = _pattern(
    r"(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+",
    "a cgroup path: it begins with '/' and has plain names, as in /fairway",
)
# An interface's name has 15 bytes; the rest is for the task's part.
interface_prefix = _pattern(r"[a-z][a-z0-9]{0,3}", "1 to 4 lower-case letters and digits, a letter first")
