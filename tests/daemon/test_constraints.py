"""Placement constraints: what they allow and how they refuse to be read."""

from __future__ import annotations

import pytest

from daemon.errors import Refused
from daemon.orchestration.constraints import first_refusal, parse, parse_all
from proto import objects_pb2 as objects


def node() -> objects.Node:
    return objects.Node(
        meta=objects.Meta(id="n1", name="host-1", labels={"disk": "ssd", "zone": "a b"}),
        role=objects.NODE_ROLE_VOTER,
        description=objects.NodeDescription(hostname="box", architecture="amd64"),
    )


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("node.id == n1", True),
        ("node.id!=n1", False),
        ("node.hostname == host-1", True),
        ("node.hostname == box", True),
        ("node.hostname != box", False),
        ("node.role == manager", True),
        ("node.role == voter", True),
        ("node.role==worker", False),
        ("node.platform.os == linux", True),
        ("node.platform.arch == x86_64", True),
        ("node.platform.arch != arm64", True),
        ("node.labels.disk == ssd", True),
        (" node.labels.disk  !=  ssd ", False),
        ("node.labels.zone == a b", True),
        ("node.labels.none == x", False),
        ("node.labels.none != x", True),
    ],
)
def test_constraints_allow(text: str, allowed: bool) -> None:
    assert parse(text).allows(node()) is allowed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not of the form"),
        ("node.labels.disk", "not of the form"),
        ("node.labels.disk = ssd", "not of the form"),
        ("node.labels.disk ==", "value is missing"),
        ("node.labels. == ssd", "cannot be a label's name"),
        ("node.name == host-1", "there is no key 'node.name'"),
        ("engine.labels.disk == ssd", "node.labels.NAME"),
        ("node.role == boss", "use voter or worker"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text)
    assert words in refused.value.message
    assert repr(text) in refused.value.message


def test_the_first_that_does_not_hold_explains() -> None:
    wanted = parse_all(["node.labels.disk == ssd", "node.role == worker"])
    assert first_refusal(wanted, node()) == "does not match node.role == worker"
