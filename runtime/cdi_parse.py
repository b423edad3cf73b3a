"""A CDI specification's text to what it says. Pure.

As the CDI library does, unknown keys and keys newer than the version that the file states are refused: what is not
understood must not be half carried out. What Fairway cannot do (intelRdt, netDevices) is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proto.device_rules import is_kind, is_name
from runtime.cdi_model import (
    ENTRIES_MAX,
    SPEC_DEVICES_MAX,
    CdiDevice,
    CdiEdits,
    CdiFault,
    CdiHook,
    CdiMount,
    CdiNode,
    CdiSpec,
)

JSON_BYTES_MAX = 1 << 20
YAML_BYTES_MAX = 256 << 10  # it is read far more slowly than JSON
TEXT_BYTES_MAX = 4096
ANNOTATIONS_MAX = 64

_VERSION = re.compile(r"(0\.[3-8]|1\.[01])\.\d{1,4}")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_NODE_KINDS = {"c": "c", "u": "c", "b": "b", "p": "p"}  # an unbuffered character device is a character device
_NUMBER_MAX = (1 << 32) - 1


def parse(text: bytes, path: Path) -> CdiSpec:
    """Raises CdiFault."""
    found = _Fields(_load(text, path), "the specification")
    version = found.text("cdiVersion")
    if not _VERSION.fullmatch(version):
        raise CdiFault(f"cdiVersion {version!r} is not one that Fairway knows: 0.3.0 to 1.1.0")
    checked = _Version(version)
    kind = found.text("kind")
    if not is_kind(kind):
        raise CdiFault(f"the kind {kind!r} is not of the form vendor.com/class")
    if "." in kind.partition("/")[2]:
        checked.needs("0.6", "a dot in the class of the kind")
    annotations = _annotations(found, checked)
    edits = _edits(found.below("containerEdits"), checked)
    devices = tuple(_device(each, kind, annotations, checked) for each in found.elements("devices", SPEC_DEVICES_MAX))
    found.no_others()
    names = [device.name for device in devices]
    if not names:
        raise CdiFault("it has no devices")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise CdiFault(f"device {twice} is there twice")
    return CdiSpec(path, version, kind, devices, edits)


def _load(text: bytes, path: Path) -> Any:
    is_json = path.suffix == ".json"
    bytes_max = JSON_BYTES_MAX if is_json else YAML_BYTES_MAX
    if len(text) > bytes_max:
        raise CdiFault(f"it is larger than {bytes_max} bytes")
    try:
        return json.loads(text) if is_json else _load_yaml(text)
    except RecursionError:
        raise CdiFault("it is nested too deeply") from None
    except ValueError as error:
        raise CdiFault(f"it is not {'JSON' if is_json else 'YAML'}: {error}") from error


def _load_yaml(text: bytes) -> Any:
    from ruamel.yaml import YAML  # most hosts have no such file
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text.decode())
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


class _Version:
    def __init__(self, version: str) -> None:
        self._version = version
        self._numbers = _numbers(version)

    def needs(self, version: str, what: str) -> None:
        if self._numbers < _numbers(version):
            raise CdiFault(f"{what} needs cdiVersion {version}.0, and the file says {self._version}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


class _Fields:
    """A mapping whose keys are taken one after the other; `no_others` refuses those that nobody took."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise CdiFault(f"{where} is not a mapping")
        self._left = dict(value)
        self._where = where

    def has(self, key: str) -> bool:
        return self._left.get(key) is not None

    def text(self, key: str, otherwise: str | None = None) -> str:
        value = self._left.pop(key, None)
        if value is None and otherwise is not None:
            return otherwise
        if not isinstance(value, str) or not value:
            raise CdiFault(f"{key} of {self._where} is missing or not a text")
        return _checked_text(value, f"{key} of {self._where}")

    def path(self, key: str, otherwise: str | None = None) -> str:
        found = self.text(key, otherwise)
        if not found.startswith("/") or ".." in found.split("/"):
            raise CdiFault(f"{key} {found!r} of {self._where} is not an absolute path")
        return found

    def number(self, key: str) -> int | None:
        value = self._left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _NUMBER_MAX:
            raise CdiFault(f"{key} of {self._where} is not a number from 0 to {_NUMBER_MAX}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        where = f"{key} of {self._where}"
        values = self._list(key, ENTRIES_MAX)
        if not all(isinstance(value, str) for value in values):
            raise CdiFault(f"{where} is not a list of texts")
        return tuple(_checked_text(value, where) for value in values)

    def numbers(self, key: str) -> tuple[int, ...]:
        return tuple(_Fields({key: value}, self._where).number(key) or 0 for value in self._list(key, ENTRIES_MAX))

    def elements(self, key: str, count_max: int = ENTRIES_MAX) -> list[_Fields]:
        values = self._list(key, count_max)
        return [_Fields(value, f"{key}[{number}]") for number, value in enumerate(values)]

    def below(self, key: str) -> _Fields:
        value = self._left.pop(key, None)
        return _Fields({} if value is None else value, f"{key} of {self._where}")

    def pairs(self, key: str) -> dict[str, str]:
        value = self._left.pop(key, None)
        if value is None:
            return {}
        where = f"{key} of {self._where}"
        if not isinstance(value, dict) or len(value) > ANNOTATIONS_MAX:
            raise CdiFault(f"{where} is not a mapping of at most {ANNOTATIONS_MAX} texts")
        for name, text in value.items():
            if not isinstance(name, str) or not isinstance(text, str):
                raise CdiFault(f"{where} is not a mapping of texts")
        return {_checked_text(name, where): _checked_text(text, where) for name, text in value.items()}

    def no_others(self) -> None:
        for key in self._left:
            raise CdiFault(f"{self._where} has {str(key)[:60]!r}, which is not a key of CDI up to 1.1.0")

    def _list(self, key: str, count_max: int) -> list[Any]:
        value = self._left.pop(key, None)
        if value is None:
            return []
        if not isinstance(value, list):
            raise CdiFault(f"{key} of {self._where} is not a list")
        if len(value) > count_max:
            raise CdiFault(f"{key} of {self._where} has more than {count_max} entries")
        return value


def _checked_text(value: str, where: str) -> str:
    if len(value.encode(errors="replace")) > TEXT_BYTES_MAX or "\0" in value:
        raise CdiFault(f"{where} has a text with NUL or more than {TEXT_BYTES_MAX} bytes")
    return value


def _annotations(fields: _Fields, version: _Version) -> dict[str, str]:
    if fields.has("annotations"):
        version.needs("0.6", "annotations")
    return fields.pairs("annotations")


def _device(fields: _Fields, kind: str, annotations: Mapping[str, str], version: _Version) -> CdiDevice:
    name = fields.text("name")
    if not is_name(name):
        raise CdiFault(f"{name!r} cannot be the name of a device")
    if name[0].isdigit():
        version.needs("0.5", f"a name that begins with a digit ({name})")
    own = _annotations(fields, version)
    edits = _edits(fields.below("containerEdits"), version)
    if edits.empty:
        raise CdiFault(f"device {name} has no containerEdits")
    fields.no_others()
    return CdiDevice(kind, name, edits, {**annotations, **own})


def _edits(fields: _Fields, version: _Version) -> CdiEdits:
    for key in ("intelRdt", "netDevices"):
        if fields.has(key):
            raise CdiFault(f"{key} is not supported by Fairway")
    if fields.has("additionalGids"):
        version.needs("0.7", "additionalGids")
    edits = CdiEdits(
        environment=_environment(fields),
        nodes=tuple(_node(each, version) for each in fields.elements("deviceNodes")),
        mounts=tuple(_mount(each, version) for each in fields.elements("mounts")),
        hooks=tuple(_hook(each) for each in fields.elements("hooks")),
        groups=tuple(number for number in fields.numbers("additionalGids") if number),  # 0 is left out, as CDI says
    )
    fields.no_others()
    return edits


def _environment(fields: _Fields) -> tuple[str, ...]:
    lines = fields.texts("env")
    for line in lines:
        if line.find("=") <= 0:
            raise CdiFault(f"env has {line[:60]!r}, which is not NAME=value")
    return lines


def _node(fields: _Fields, version: _Version) -> CdiNode:
    path = fields.path("path")
    if fields.has("hostPath"):
        version.needs("0.5", "hostPath of a device node")
    kind = fields.text("type", "")
    if kind and kind not in _NODE_KINDS:
        raise CdiFault(f"device node {path} has the type {kind!r}; it is one of {', '.join(_NODE_KINDS)}")
    permissions = fields.text("permissions", "rwm")
    if permissions != "none" and set(permissions) - set("rwm"):
        raise CdiFault(f"device node {path} has the permissions {permissions!r}; they are made of r, w and m")
    node = CdiNode(
        path=path,
        host_path=fields.path("hostPath", path),
        kind=_NODE_KINDS[kind] if kind else None,
        major=fields.number("major"),
        minor=fields.number("minor"),
        mode=fields.number("fileMode"),
        permissions="" if permissions == "none" else permissions,
        uid=fields.number("uid"),
        gid=fields.number("gid"),
    )
    fields.no_others()
    return node


def _mount(fields: _Fields, version: _Version) -> CdiMount:
    if fields.has("type"):
        version.needs("0.4", "type of a mount")
    mount = CdiMount(
        host_path=fields.text("hostPath"),  # of a tmpfs it is no path
        container_path=fields.path("containerPath"),
        kind=fields.text("type", ""),
        options=fields.texts("options"),
    )
    fields.no_others()
    return mount


def _hook(fields: _Fields) -> CdiHook:
    name = fields.text("hookName")
    if name not in _HOOKS:
        raise CdiFault(f"the hook {name[:60]!r} is not one of {', '.join(_HOOKS)}")
    hook = CdiHook(
        name=name,
        path=fields.path("path"),
        arguments=fields.texts("args"),
        environment=_environment(fields),
        timeout_s=fields.number("timeout"),
    )
    fields.no_others()
    return hook
