"""Whether this host can have IPv6 addresses of ours, and the switches of its devices for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from net.errors import NetworkError
from net.model import DesiredNetwork

IPV6_MTU_BYTES_MIN = 1280  # RFC 8200, section 5; on a device with less the kernel turns IPv6 off

MARK = Path("/proc/net/if_inet6")
_SETTINGS = Path("/proc/sys/net/ipv6/conf")


def is_there() -> bool:
    """Whether the kernel has IPv6: it was not built, or started, without it."""
    return MARK.exists()


def lacking(desired: DesiredNetwork, mtu_bytes: int) -> str:
    """Why the cluster's IPv6 ends before this host, in words; empty where it does not, or where there is none."""
    if not desired.config.ipv6_prefix:
        return ""
    if not is_there():
        return "no IPv6: the kernel was started with ipv6.disable=1 (or built without it); tasks here have IPv4 only"
    if mtu_bytes < IPV6_MTU_BYTES_MIN:
        return (
            f"no IPv6: the overlay's MTU is {mtu_bytes} bytes and IPv6 needs {IPV6_MTU_BYTES_MIN}; "
            "tasks here have IPv4 only"
        )
    return ""


def without_ipv6(desired: DesiredNetwork) -> DesiredNetwork:
    return replace(desired, config=replace(desired.config, ipv6_prefix="")) if desired.config.ipv6_prefix else desired


def read_setting(device: str, name: str) -> str:
    """Of a device, or of "all" and "default", in the network namespace of the thread; "" where there is none."""
    try:
        return (_SETTINGS / device / name).read_text().strip()
    except OSError:
        return ""


def write_setting(device: str, name: str, value: int) -> None:
    """Raises NetworkError."""
    path = _SETTINGS / device / name
    try:
        path.write_text(str(value))
    except OSError as error:
        raise NetworkError(f"write {value} to {path}: {error.strerror}; let fairwayd write there") from error


def is_on(device: str) -> bool:
    """Whether a device has to do with IPv6 at all: not where its MTU is too small for it."""
    return is_there() and (_SETTINGS / device).exists()


def turn_on(device: str) -> bool:
    """Has a device use IPv6 where new ones do not by the host's settings; whether it had to."""
    if read_setting(device, "disable_ipv6") != "1":
        return False
    write_setting(device, "disable_ipv6", 0)
    return True
