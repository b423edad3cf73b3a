"""Placement constraints: `node.labels.disk == ssd`, as in Compose files for Docker Swarm.

Syntax: KEY OPERATOR VALUE; the operator is `==` or `!=`. Keys: node.id, node.hostname, node.role (voter,
worker; manager means voter), node.platform.os, node.platform.arch, node.labels.NAME. A label that a node
does not have equals nothing, so `!=` holds for it. All constraints of a service must hold.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from daemon.errors import Refused
from proto import objects_pb2 as objects

LABEL_PREFIX = "node.labels."
KEYS = ("node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch")
ROLES = {"voter": "voter", "manager": "voter", "worker": "worker"}
OPERATING_SYSTEM = "linux"  # the only one that fairwayd runs on
ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}  # as people write them

_FORM = re.compile(r"\s*(?P<key>[^\s=!]+)\s*(?P<operator>==|!=)\s*(?P<value>.*?)\s*", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Constraint:
    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key} {'==' if self.equal else '!='} {self.value}"

    def allows(self, node: objects.Node) -> bool:
        return self.accepts(values_of(self.key, node))

    def accepts(self, values: Container[str]) -> bool:
        """The same, of a host that has these values for the key."""
        return (self.value in values) == self.equal

    def refusal(self) -> str:
        """Why a host that it does not allow is not taken: "does not match node.labels.disk == ssd"."""
        return f"does not match {self}"


def parse(text: str) -> Constraint:
    """One constraint. Raises Refused with what is wrong and an example."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise _refused(text, "it is not of the form KEY == VALUE or KEY != VALUE")
    key, value = found["key"], found["value"]
    if problem := _key_problem(key):
        raise _refused(text, problem)
    if not value:
        raise _refused(text, "the value is missing")
    if any(character in value for character in "\n\r\0"):
        raise _refused(text, "the value has a line break in it")
    if key == "node.role":
        if value not in ROLES:
            raise _refused(text, f"there is no role {value!r}; use voter or worker")
        value = ROLES[value]
    if key == "node.platform.arch":
        value = ARCHITECTURES.get(value.lower(), value.lower())
    if key == "node.platform.os":
        value = value.lower()
    return Constraint(key, found["operator"] == "==", value)


def check_key(key: str) -> None:
    """Raises Refused where hosts have no such property."""
    if problem := _key_problem(key):
        raise Refused(f"hosts cannot be told apart by {key!r}: {problem}")


def parse_all(texts: Iterable[str]) -> list[Constraint]:
    """Raises Refused for the first that cannot be read."""
    return [parse(text) for text in texts]


def first_refusal(constraints: Iterable[Constraint], node: objects.Node) -> str | None:
    """None where all hold for `node`; else why not."""
    for constraint in constraints:
        if not constraint.allows(node):
            return constraint.refusal()
    return None


def _key_problem(key: str) -> str:
    if key.startswith(LABEL_PREFIX):
        name = key.removeprefix(LABEL_PREFIX)
        return "" if _LABEL.fullmatch(name) else f"{name!r} cannot be a label's name"
    if key.startswith("engine.labels."):
        return f"hosts have no engine labels; set a label of the node and use {LABEL_PREFIX}NAME"
    return "" if key in KEYS else f"there is no key {key!r}; use {', '.join(KEYS)} or {LABEL_PREFIX}NAME"


def values_of(key: str, node: objects.Node) -> tuple[str, ...]:
    """What a host has for a key: nothing for a label that it does not have."""
    if key.startswith(LABEL_PREFIX):
        name = key.removeprefix(LABEL_PREFIX)
        return (node.meta.labels[name],) if name in node.meta.labels else ()
    if key == "node.id":
        return (node.meta.id,)
    if key == "node.hostname":
        return (node.meta.name, node.description.hostname)
    if key == "node.role":
        return ("voter",) if node.role == objects.NODE_ROLE_VOTER else ("worker",)
    if key == "node.platform.os":
        return (OPERATING_SYSTEM,)
    return (node.description.architecture,)


def _refused(text: str, why: str) -> Refused:
    return Refused(f"constraint {text!r} cannot be used: {why} (example: node.labels.disk == ssd)")
