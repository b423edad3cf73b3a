"""Why tasks are replaced is said of every field of a service, whoever added it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from daemon.deploying.app_changes import as_tasks_see, spec_changes
from proto import objects_pb2 as objects

# Of tasks of `fairway run` alone, which are never changed, and of `fairway restart`, which has words of its own.
_NEVER_COMPARED = {"attached", "restarted"}
_VALUES: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "x",
    FieldDescriptor.TYPE_BYTES: b"x",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 1.0,
}
DEPTH_MAX = 3


def fill(message: Message, field: Any, depth: int = 0) -> None:
    """Gives a field (a FieldDescriptor) something, and the fields of what is in it."""
    if field.message_type is None:
        value = _VALUES.get(field.type, 1)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    elif field.message_type.GetOptions().map_entry:
        of_value = field.message_type.fields_by_name["value"]
        below = getattr(message, field.name)
        if of_value.message_type is None:
            below["key"] = _VALUES.get(of_value.type, 1)
        else:
            below["key"].SetInParent()
    else:
        below = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
        below.SetInParent()
        for each in field.message_type.fields if depth < DEPTH_MAX else ():
            if each.containing_oneof is None:
                fill(below, each, depth + 1)


@pytest.mark.parametrize("part", ["service", "container", "isolation", "resources"])
def test_every_field_that_tasks_see_has_words(part: str) -> None:
    def message(spec: objects.ServiceSpec) -> Message:
        inside: dict[str, Message] = {
            "service": spec,
            "container": spec.container,
            "isolation": spec.container.isolation,
            "resources": spec.resources,
        }
        return inside[part]

    silent = []
    for field in message(objects.ServiceSpec()).DESCRIPTOR.fields:
        before, after = objects.ServiceSpec(), objects.ServiceSpec()
        fill(message(after), field)
        seen = as_tasks_see(before) != as_tasks_see(after)
        if seen and field.name not in _NEVER_COMPARED and spec_changes(before, after) == ["its settings changed"]:
            silent.append(field.name)
    assert not silent


def test_a_runtime_and_a_user_namespace_are_named() -> None:
    before, after = objects.ServiceSpec(), objects.ServiceSpec()
    after.container.isolation.runtime, after.container.isolation.user_namespace = "crun", True
    assert spec_changes(before, after) == ["runtime runc -> crun", "user namespace no -> yes"]
