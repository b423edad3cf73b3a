"""IPv4 forwarding of the host: turned on, and put back as it was when the host leaves its cluster."""

from __future__ import annotations

import json
from pathlib import Path

from net.errors import NetworkError

_SWITCH = Path("/proc/sys/net/ipv4/ip_forward")


class Forwarding:
    """`state_file` keeps what the switch was before fairwayd touched it."""

    def __init__(self, state_file: Path) -> None:
        self._state_file = state_file

    def turn_on(self) -> bool:
        """Returns whether it was off; raises NetworkError where it cannot be turned on."""
        if _read() == "1":
            return False
        if not self._state_file.exists():
            self._remember()
        _write("1")
        return True

    def restore(self) -> None:
        """Puts back what was there before; without a record leaves it on."""
        try:
            before = json.loads(self._state_file.read_text())["ip_forward_before"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        _write(str(before))
        self._state_file.unlink(missing_ok=True)

    def _remember(self) -> None:
        try:
            self._state_file.parent.mkdir(parents=True, exist_ok=True)
            self._state_file.write_text(json.dumps({"ip_forward_before": _read()}) + "\n")
        except OSError as error:
            raise NetworkError(
                f"write {self._state_file}: {error.strerror}; fairwayd keeps there what IPv4 forwarding was before"
            ) from error


def _read() -> str:
    try:
        return _SWITCH.read_text().strip()
    except OSError as error:
        raise NetworkError(f"read {_SWITCH}: {error.strerror}; is /proc mounted?") from error


def _write(value: str) -> None:
    try:
        _SWITCH.write_text(value)
    except OSError as error:
        raise NetworkError(
            f"write {value} to {_SWITCH}: {error.strerror}; run `sysctl -w net.ipv4.ip_forward={value}` "
            "or let fairwayd write there"
        ) from error
