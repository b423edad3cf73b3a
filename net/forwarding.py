"""Forwarding of the host: turned on, and put back as it was when the host leaves its cluster.

Where IPv6 forwarding is on, the kernel forgets the routers that advertise themselves and listens to none, except on
interfaces whose `accept_ra` is 2 (Documentation/networking/ip-sysctl.rst): a host that has its own default route from
them would lose it. So those that are to listen (1) are set to that first.
"""

from __future__ import annotations

import json
from pathlib import Path

from net.errors import NetworkError
from net.ipv6_support import is_there

_IPV4 = Path("/proc/sys/net/ipv4/ip_forward")
_IPV6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_ADVERTISEMENTS = Path("/proc/sys/net/ipv6/conf")
_LISTENS, _LISTENS_WHERE_FORWARDING = "1", "2"


class Forwarding:
    """`state_file` keeps what the switches were before fairwayd touched them: path -> value."""

    def __init__(self, state_file: Path) -> None:
        self._state_file = state_file

    def turn_on(self, *, ipv6: bool) -> list[str]:
        """Returns what was off ("IPv4", "IPv6"); raises NetworkError where it cannot be turned on."""
        off = []
        if _read(_IPV4) != "1":
            off.append("IPv4")
            self._set([_IPV4], "1")
        if ipv6 and is_there() and _read(_IPV6) != "1":
            off.append("IPv6")
            self._set(_listening(), _LISTENS_WHERE_FORWARDING)
            self._set([_IPV6], "1")
        return off

    def restore(self) -> None:
        """Puts back what was there before; without a record leaves it on."""
        before = self._remembered()
        for path in sorted(before, key=lambda path: path != str(_IPV6)):
            # Interfaces come and go; turning IPv6 forwarding off leaves each one's `accept_ra` alone.
            if Path(path).exists():
                _write(Path(path), before[path])
        self._state_file.unlink(missing_ok=True)

    def _set(self, paths: list[Path], value: str) -> None:
        before = self._remembered()
        new = {str(path): _read(path) for path in paths if str(path) not in before}
        if new:
            self._remember({**before, **new})
        for path in paths:
            _write(path, value)

    def _remembered(self) -> dict[str, str]:
        try:
            found = json.loads(self._state_file.read_text())["before"]
            return {str(path): str(value) for path, value in found.items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _remember(self, before: dict[str, str]) -> None:
        try:
            self._state_file.parent.mkdir(parents=True, exist_ok=True)
            self._state_file.write_text(json.dumps({"before": before}) + "\n")
        except OSError as error:
            raise NetworkError(
                f"write {self._state_file}: {error.strerror}; fairwayd keeps there what forwarding was before"
            ) from error


def _listening() -> list[Path]:
    """The switches of all interfaces, and of those to come, that take routers' advertisements."""
    paths = _ADVERTISEMENTS.glob("*/accept_ra")
    return [path for path in paths if path.parent.name != "all" and _read(path) == _LISTENS]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        if path in (_IPV4, _IPV6):
            raise NetworkError(f"read {path}: there is no such file; is /proc mounted?") from None
        return ""  # its interface has just gone
    except OSError as error:
        raise NetworkError(f"read {path}: {error.strerror}") from error


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except FileNotFoundError:
        return  # its interface has just gone
    except OSError as error:
        raise NetworkError(
            f"write {value} to {path}: {error.strerror}; run `echo {value} > {path}` or let fairwayd write there"
        ) from error
