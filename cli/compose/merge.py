"""Merges two trees as Compose does: a later file over an earlier one, a service over what it extends.

Rules: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md. Mappings are merged key by key, lists are put
together, one value replaces another; what lists say of one thing (a variable, a port, a place to mount at) the later
one says. A value tagged `!reset` takes away what was there, one tagged `!override` stands in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cli.compose.devices import is_cdi_name
from cli.compose.document import OVERRIDE, RESET, Item, Scalar
from cli.compose.probes import KINDS as PROBE_KINDS
from cli.compose.problems import Problems

Path = tuple[str, ...]

_SERVICE = "services"
# Keys of which the later value stands alone.
_REPLACED = frozenset(
    [
        (_SERVICE, "command"),
        (_SERVICE, "entrypoint"),
        (_SERVICE, "healthcheck", "test"),
        (_SERVICE, "build"),
        (_SERVICE, "credential_spec"),
        *((_SERVICE, "x-fairway", "probes", kind, "exec") for kind in PROBE_KINDS),
    ]
)
# Lists of "name=value" that may be mappings as well.
_PAIRS = frozenset(
    [
        (_SERVICE, "environment"),
        (_SERVICE, "labels"),
        (_SERVICE, "annotations"),
        (_SERVICE, "sysctls"),
        (_SERVICE, "deploy", "labels"),
        ("networks", "labels"),
        ("volumes", "labels"),
        ("configs", "labels"),
        ("secrets", "labels"),
        *((_SERVICE, "x-fairway", "probes", kind, "http", "headers") for kind in PROBE_KINDS),
    ]
)
# Lists of names that may be mappings as well.
_NAMED = frozenset([(_SERVICE, "networks"), (_SERVICE, "depends_on"), (_SERVICE, "models")])


def merged(base: Item, over: Item, path: Path, problems: Problems) -> Item:
    """`over` upon `base`, which is settled; the result keeps the tags of `over`."""
    if over.tag in (RESET, OVERRIDE):
        return over
    rule = _rule(path)
    if rule in _REPLACED or base.is_null:
        return over
    if over.is_null:
        return over if isinstance(base.value, Scalar) else base
    if rule in _PAIRS:
        base, over = _pairs(base), _pairs(over)
    elif rule in _NAMED and (isinstance(base.value, dict) or isinstance(over.value, dict)):
        base, over = _named(base), _named(over)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        if rule == (_SERVICE, "logging") and _text(base.value.get("driver")) != _text(over.value.get("driver")):
            return over if "driver" in over.value else _mappings(base, over, path, problems)
        return _mappings(base, over, path, problems)
    if isinstance(base.value, Scalar) and isinstance(over.value, Scalar) and rule not in _TEXT_OR_LIST:
        return over
    if isinstance(base.value, list) or isinstance(over.value, list):
        if rule == (_SERVICE, "extra_hosts"):
            base, over = _host_list(base), _host_list(over)
        if rule in _TEXT_OR_LIST or (isinstance(base.value, list) and isinstance(over.value, list)):
            return _lists(base, over, _IDENTITY.get(rule, _text))
    if rule in _TEXT_OR_LIST:
        return _lists(base, over, _text)
    return _unlike(base, over, path, problems)


def settled(item: Item) -> Item:
    """Without what is reset, and without tags: nothing is merged below it any more."""
    value = item.value
    if isinstance(value, dict):
        value = {key: settled(each) for key, each in value.items() if each.tag != RESET}
    elif isinstance(value, list):
        value = [settled(each) for each in value if each.tag != RESET]
    return dataclasses.replace(item, value=value, tag="")


def same(one: Item, other: Item) -> bool:
    """Whether both say the same, wherever they are written."""
    if isinstance(one.value, dict) and isinstance(other.value, dict):
        theirs = other.value
        return one.value.keys() == theirs.keys() and all(same(each, theirs[key]) for key, each in one.value.items())
    if isinstance(one.value, list) and isinstance(other.value, list):
        return len(one.value) == len(other.value) and all(map(same, one.value, other.value))
    return one.value == other.value


def _rule(path: Path) -> Path:
    """The path without the names that people give: ("services", "web", "labels") -> ("services", "labels")."""
    return (path[0], *path[2:]) if len(path) > 2 else ()


def _mappings(base: Item, over: Item, path: Path, problems: Problems) -> Item:
    assert isinstance(base.value, dict) and isinstance(over.value, dict)
    found = dict(base.value)
    for key, each in over.value.items():
        found[key] = merged(found[key], each, (*path, key), problems) if key in found else each
    return dataclasses.replace(over, value=found)


def _lists(base: Item, over: Item, identity: Callable[[Item | None], object]) -> Item:
    """Both, one after the other; where both have one with the same identity, the later in the earlier one's place."""
    found = list(_elements(base))
    places = {identity(each): index for index, each in enumerate(found)}
    places.pop(None, None)
    for each in _elements(over):
        place = places.get(identity(each))
        if place is None:
            found.append(each)
        else:
            found[place] = each
    return dataclasses.replace(over, value=found)


def _unlike(base: Item, over: Item, path: Path, problems: Problems) -> Item:
    """One is a list, say, and the other a mapping."""
    free = any(part.startswith("x-") for part in path) or _rule(path)[:2] == (_SERVICE, "ulimits")
    if not free:
        where = f"{base.source.file or problems.file}:{base.line}"
        message = f"is {_kind(over)} here and {_kind(base)} in {where}; only alike values can be merged, or !override"
        problems.add(over.line, ".".join(path), message, over.source.file)
    return over


def _kind(item: Item) -> str:
    if isinstance(item.value, dict):
        return "a mapping"
    return "a list" if isinstance(item.value, list) else "one value"


def _elements(item: Item) -> list[Item]:
    return item.value if isinstance(item.value, list) else [item]


def _text(item: Item | None) -> str | None:
    return item.value.text if item is not None and isinstance(item.value, Scalar) else None


def _pairs(item: Item) -> Item:
    """A list of "name=value" as the mapping that says the same; anything else as it is."""
    if not isinstance(item.value, list) or any(_text(each) is None for each in item.value):
        return item
    found = {}
    for each in item.value:
        name, equals, value = (_text(each) or "").partition("=")
        found[name] = dataclasses.replace(each, value=Scalar(value, "str") if equals else Scalar("", "null"))
    return dataclasses.replace(item, value=found)


def _named(item: Item) -> Item:
    """A list of names as the mapping that says nothing more of each."""
    if not isinstance(item.value, list) or any(_text(each) is None for each in item.value):
        return item
    found = {_text(each) or "": dataclasses.replace(each, value=Scalar("", "null")) for each in item.value}
    return dataclasses.replace(item, value=found)


def _host_list(item: Item) -> Item:
    """`extra_hosts` as a list: a name may have several addresses, and none replaces another."""
    if not isinstance(item.value, dict):
        return item
    found = [
        dataclasses.replace(each, value=Scalar(f"{name}={_text(each)}", "str"))
        for name, below in item.value.items()
        for each in _elements(below)
    ]
    return dataclasses.replace(item, value=found)


def _key(item: Item, *names: str) -> str | None:
    """The first of these keys that a mapping has, as text."""
    assert isinstance(item.value, dict)
    return next((text for name in names if (text := _text(item.value.get(name))) is not None), None)


def _mounted_at(item: Item | None) -> object:
    """Of an entry of `volumes` or `devices`: the path in the container, or the device of CDI."""
    if item is not None and isinstance(item.value, dict):
        return _key(item, "target", "source")
    text = _text(item) or ""
    if is_cdi_name(text):
        return text
    parts = text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _file_at(item: Item | None) -> object:
    """Of an entry of `configs` or `secrets`: where its file is, or whose it is."""
    if item is not None and isinstance(item.value, dict):
        return _key(item, "target", "source")
    return _text(item)


def _content(item: Item | None) -> object:
    """All that an entry says: what is asked for twice in the same words is asked for once."""
    if item is not None and isinstance(item.value, dict):
        return tuple(sorted((key, _content(each)) for key, each in item.value.items()))
    if item is not None and isinstance(item.value, list):
        return tuple(_content(each) for each in item.value)
    return _text(item)


def _port(item: Item | None) -> object:
    """Address, published port, port of the container and protocol."""
    if item is not None and isinstance(item.value, dict):
        published = _key(item, "published") or ""
        return _key(item, "host_ip") or "", published, _key(item, "target"), _key(item, "protocol") or "tcp"
    body, _, protocol = (_text(item) or "").partition("/")
    front, _, target = body.rpartition(":")
    address, _, published = front.rpartition(":")
    return address, published, target, protocol or "tcp"


_IDENTITY: dict[Path, Callable[[Item | None], object]] = {
    (_SERVICE, "ports"): _port,
    (_SERVICE, "volumes"): _mounted_at,
    (_SERVICE, "devices"): _mounted_at,
    (_SERVICE, "gpus"): _content,
    (_SERVICE, "deploy", "resources", "reservations", "devices"): _content,
    (_SERVICE, "x-fairway", "devices"): _content,
    (_SERVICE, "configs"): _file_at,
    (_SERVICE, "secrets"): _file_at,
    # What is in such a file may use what the one before said: their order and number count.
    (_SERVICE, "env_file"): lambda item: None,
}
_TEXT_OR_LIST = frozenset((_SERVICE, key) for key in ("env_file", "label_file", "dns", "dns_search", "tmpfs"))
