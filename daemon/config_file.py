"""Reads fairwayd.toml into daemon/config.py's classes, strictly, and says where in the file it is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

from daemon.config import DEFAULT_PATH, Config, ConfigError
from daemon.config_checks import CHECK

FILE_BYTES_MAX = 1 << 20

_TABLES: dict[str, type[Any]] = typing.get_type_hints(Config)
_WORDS = {str: "text in quotes", int: "a whole number", bool: "true or false", Path: "a path in quotes"}


def read(path: Path | None) -> Config:
    """See daemon.config.load."""
    chosen = path if path is not None else DEFAULT_PATH
    try:
        text = _read_text(chosen)
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(
            f"{chosen}: there is no such file; write it, or start without --config for the defaults"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chosen}: cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{chosen}: is not valid TOML: {error}") from error
    return _Reader(chosen, text).config(document)


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: is larger than {FILE_BYTES_MAX} bytes; this is no configuration of fairwayd")
    return data.decode()


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, document: dict[str, Any]) -> Config:
        tables: dict[str, Any] = {}
        for name, content in document.items():
            if name not in _TABLES:
                self._unknown("", name, f"[{name}]" if isinstance(content, dict) else name, _TABLES)
            if not isinstance(content, dict):
                self._fail("", name, f"{name!r} must be a table: write [{name}] on a line of its own")
            tables[name] = self._table(name, _TABLES[name], content)
        host = tables.get("host", Config().host)
        if "volumes_folder" not in document.get("storage", {}):
            storage = tables.get("storage", Config().storage)
            tables["storage"] = dataclasses.replace(storage, volumes_folder=host.state_folder / "volumes")
        config = Config(**tables)
        self._check_together(config)
        return config

    def _table(self, table: str, kind: type[Any], content: dict[str, Any]) -> Any:
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        values: dict[str, Any] = {}
        for key, raw in content.items():
            if key not in fields:
                self._unknown(table, key, f"{key!r} in [{table}]", fields)
            value = self._typed(table, key, hints[key], raw)
            error = fields[key].metadata[CHECK](value)
            if error is not None:
                self._fail(table, key, f"{key} in [{table}]: {error}")
            values[key] = value
        return kind(**values)

    def _typed(self, table: str, key: str, kind: Any, raw: Any) -> Any:
        if kind is int and isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        if (kind is str and isinstance(raw, str)) or (kind is bool and isinstance(raw, bool)):
            return raw
        if kind is Path and isinstance(raw, str):
            return Path(raw)
        listed = typing.get_origin(kind) is tuple
        if listed and isinstance(raw, list) and all(isinstance(item, str) for item in raw):
            return tuple(raw)
        wanted = 'a list of texts, as in ["one", "two"]' if listed else _WORDS[kind]
        self._fail(table, key, f"{key} in [{table}] must be {wanted}, not {raw!r}")
        raise AssertionError("not reached")

    def _check_together(self, config: Config) -> None:
        ports: dict[int, str] = {}
        for table, port in (("api", config.api.port), ("raft", config.raft.port), ("join", config.join.port)):
            if port in ports:
                self._fail(table, "port", f"port {port} is set for both [{ports[port]}] and [{table}]")
            ports[port] = table
        timing = config.timing
        if timing.host_down_ms < 2 * timing.heartbeat_ms:
            self._fail("timing", "host_down_ms", "host_down_ms must be at least twice heartbeat_ms")
        if timing.host_restart_ms < timing.host_down_ms:
            self._fail("timing", "host_restart_ms", "host_restart_ms must be at least host_down_ms")
        if timing.raft_election_ms_min < 4 * timing.raft_heartbeat_ms:
            self._fail("timing", "raft_election_ms_min", "raft_election_ms_min must be at least 4 raft_heartbeat_ms")
        if timing.raft_election_ms_max <= timing.raft_election_ms_min:
            self._fail(
                "timing",
                "raft_election_ms_max",
                "raft_election_ms_max must be larger than raft_election_ms_min: "
                "members that wait equally long elect nobody",
            )

        if config.garbage.high_percent <= config.garbage.low_percent:
            self._fail("garbage", "high_percent", "high_percent must be larger than low_percent")
        backup = config.backup
        if backup.folder and not backup.passphrase_file:
            self._fail(
                "backup",
                "folder",
                "backups hold the cluster key, sealed: set passphrase_file in [backup] to a file with a passphrase",
            )
        if backup.passphrase_file and not backup.folder:
            self._fail("backup", "passphrase_file", "passphrase_file is of no use without folder in [backup]")

    def _unknown(self, table: str, key: str, shown: str, known: typing.Iterable[str]) -> typing.NoReturn:
        names = list(known)
        near = difflib.get_close_matches(key, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names)}"
        self._fail(table, key, f"{shown} is not known; {hint}")

    def _fail(self, table: str, key: str, message: str) -> typing.NoReturn:
        line = self._line_of(table, key)
        where = f"{self._path}:{line}" if line else f"{self._path}"
        raise ConfigError(f"{where}: {message}")

    def _line_of(self, table: str, key: str) -> int | None:
        """The line that sets `key` of `table`, else the table's header, else None. A scan is enough: it only
        decorates messages about a document that the TOML parser has understood."""
        current, header = "", None
        for number, line in enumerate(self._lines, 1):
            heading = re.match(r"\s*\[+\s*([^\]\s]+)\s*\]+", line)
            if heading:
                current = heading[1].strip("\"'")
                if current == (table or key):
                    header = header or number
                continue
            assigned = re.match(r"\s*([A-Za-z0-9_.\-\"']+)\s*=", line)
            if assigned is None:
                continue
            name = assigned[1].replace('"', "").replace("'", "")
            dotted = f"{current}.{name}" if current else name
            below = header is None and not table and dotted.startswith(f"{key}.")
            if below or dotted == (f"{table}.{key}" if table else key):
                return number
        return header
