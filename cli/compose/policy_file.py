"""A file of policies to `Policy` objects, or all that is wrong with it, by line."""

from __future__ import annotations

from cli.compose import document
from cli.compose.policy import read_directions, read_selector
from cli.compose.problems import ComposeRefused, Problem, Problems
from cli.compose.reader import Field, Reader
from proto import objects_pb2

_KEYS = frozenset({"name", "tenant", "labels", "selects", "ingress", "egress", "dry_run"})
_SELECTS_HINTS = {"tenant": "a policy selects services of its own tenant; give the policy one"}


def parse(data: bytes, file: str) -> list[objects_pb2.Policy]:
    """Raises ComposeRefused with every problem."""
    problems = Problems(file)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ComposeRefused(file, [Problem(0, "", f"the file is not UTF-8 text: {error}")]) from error
    root = document.parse(text, problems, lambda value, _line, _path: value)
    if root is None:
        problems.raise_any()
        problems.add(1, "", "the file is empty; it needs policies")
        problems.raise_any()
    assert root is not None
    reader = Reader(problems)
    top = reader.known_entries(Field(root, ""), frozenset({"policies"}))
    found = []
    if "policies" not in top:
        problems.add(1, "", "the file has no policies")
    else:
        elements = reader.elements(top["policies"])
        if not elements:
            reader.refuse(top["policies"], "has no policies")
        found = [_policy(reader, each) for each in elements]
    problems.raise_any()
    return found


def _policy(reader: Reader, field: Field) -> objects_pb2.Policy:
    policy = objects_pb2.Policy()
    entries = reader.known_entries(field, _KEYS)
    if "name" in entries:
        policy.meta.name = reader.text(entries["name"])
    else:
        reader.refuse(field, "has no name")
    if "tenant" in entries:
        policy.meta.tenant = reader.text(entries["tenant"])
    if "labels" in entries:
        policy.meta.labels.update(reader.labels(entries["labels"]))
    policy.selects.SetInParent()
    if "selects" in entries:
        selects = reader.known_entries(entries["selects"], frozenset({"service", "app", "labels"}), _SELECTS_HINTS)
        read_selector(reader, selects, policy.selects)
    else:
        reader.refuse(field, "has no selects; selects: {} is every service of the tenant")
    read_directions(reader, field, entries, policy)
    return policy
