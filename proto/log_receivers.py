"""Where the logs of tasks may be sent besides the host's files, by Docker's names of drivers and options.

For those who write them (cli), those who check them (daemon) and those who carry them out (runtime).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from proto import objects_pb2

_Logging = objects_pb2.Logging
DRIVERS = {
    "journald": _Logging.DRIVER_JOURNALD,
    "syslog": _Logging.DRIVER_SYSLOG,
    "fluentd": _Logging.DRIVER_FLUENTD,
    "otlp": _Logging.DRIVER_OTLP,
}
FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]  # by number, RFC 5424 section 6.2.1
OPTIONS: Mapping[str, frozenset[str]] = {
    "journald": frozenset({"tag"}),
    "syslog": frozenset(
        {
            "tag",
            "syslog-address",
            "syslog-facility",
            "syslog-format",
            "syslog-tls-ca-cert",
            "syslog-tls-cert",
            "syslog-tls-key",
            "syslog-tls-skip-verify",
        }
    ),
    "fluentd": frozenset({"tag", "fluentd-address"}),
    "otlp": frozenset({"otlp-endpoint", "otlp-headers", "otlp-ca-cert"}),
}
ALL_OPTIONS = frozenset().union(*OPTIONS.values())
OPTION_BYTES_MAX = 4096
JOURNAL_SOCKET = "/run/systemd/journal/socket"
_PORTS = {"syslog": {"tcp": 514, "udp": 514, "tcp+tls": 6514}, "fluentd": {"tcp": 24224}}
_KEYS = {"syslog": "syslog-address", "fluentd": "fluentd-address", "otlp": "otlp-endpoint"}
_USUAL = {"syslog": "unix:///dev/log", "fluentd": "tcp://127.0.0.1:24224", "otlp": "http://127.0.0.1:4318"}
_TEMPLATE = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")
TAG_WORDS = frozenset({"Name", "ID", "FullID", "ImageName", "App", "Service", "DaemonName"})


@dataclass(frozen=True)
class Address:
    scheme: str  # "unix", "tcp", "udp", "tcp+tls", "http", "https"
    path: str  # of a socket, or of a URL
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def driver_name(driver: _Logging.Driver.ValueType) -> str:
    """Empty where it sends nothing anywhere."""
    return next((name for name, value in DRIVERS.items() if value == driver), "")


def address_of(driver: str, options: Mapping[str, str]) -> Address:
    """Where the driver sends to. Raises ValueError."""
    if driver == "journald":
        return Address("unix", JOURNAL_SOCKET)
    text = options.get(_KEYS[driver], "") or _USUAL[driver]
    if driver == "fluentd" and "://" not in text:
        text = f"tcp://{text}"
    schemes = {"syslog": ("unix", "unixgram", "udp", "tcp", "tcp+tls"), "fluentd": ("tcp", "unix")}
    known = schemes.get(driver, ("http", "https"))
    parts = urlsplit(text)
    if parts.scheme not in known:
        raise ValueError(f"{text!r} does not begin with one of {', '.join(f'{each}://' for each in known)}")
    if parts.scheme.startswith("unix"):
        if not parts.path.startswith("/"):
            raise ValueError(f"{text!r} has no path of a socket")
        return Address("unix", parts.path)
    port = parts.port or _PORTS.get(driver, {}).get(parts.scheme) or {"http": 80, "https": 443}.get(parts.scheme, 0)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not SCHEME://HOST:PORT")
    path = (parts.path.rstrip("/") or "/v1/logs") if driver == "otlp" else ""
    if driver != "otlp" and parts.path.strip("/"):
        raise ValueError(f"{text!r} has a path behind its port")
    return Address(parts.scheme, path, parts.hostname, port)


def headers_of(options: Mapping[str, str]) -> dict[str, str]:
    """ "a=b,c=d" of otlp-headers. Raises ValueError."""
    found = {}
    for entry in filter(None, options.get("otlp-headers", "").split(",")):
        name, equals, value = entry.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name.strip()) or not value.isprintable():
            raise ValueError(f"{entry!r} is not NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def option_problem(driver: str, name: str, value: str) -> str:
    """What is wrong with one option, in words; empty where it is right."""
    if name not in OPTIONS[driver]:
        return f"is no option of the driver {driver}, as Fairway has it"
    if len(value.encode()) > OPTION_BYTES_MAX:
        return f"is longer than {OPTION_BYTES_MAX} bytes"
    try:
        if name == _KEYS.get(driver):
            address_of(driver, {name: value})
        elif name == "otlp-headers":
            headers_of({name: value})
    except ValueError as error:
        return str(error)
    if name == "syslog-facility" and value not in FACILITIES and not (value.isdecimal() and int(value) < 24):
        return f"{value!r} is no facility; there are {', '.join(FACILITIES)}"
    if name == "syslog-format" and value not in ("rfc5424", "rfc5424micro"):
        return f"{value!r} is not supported by Fairway: rfc5424 is"
    if name == "syslog-tls-skip-verify" and value not in ("true", "false"):
        return f"{value!r} is neither true nor false"
    if name.endswith(("-cert", "-key")) and not value.startswith("/"):
        return f"{value!r} is no absolute path on the task's host"
    unknown = [word for word in _TEMPLATE.findall(value) if word not in TAG_WORDS] if name == "tag" else []
    if unknown or (name == "tag" and "{{" in _TEMPLATE.sub("", value)):
        return f"{value!r} has a template that Fairway does not know; there are " + ", ".join(
            f"{{{{.{word}}}}}" for word in sorted(TAG_WORDS)
        )
    return ""


def tag_of(options: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The tag with its templates filled in; `words`: by TAG_WORDS."""
    return _TEMPLATE.sub(lambda match: words.get(match[1], ""), options.get("tag", "") or "{{.Name}}")
