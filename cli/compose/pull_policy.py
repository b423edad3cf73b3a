"""When a service's image is pulled: `pull_policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto import objects_pb2

if TYPE_CHECKING:  # commands that read no Compose file have no use for its parser
    from cli.compose.reader import Field, Reader

POLICIES = {
    "always": objects_pb2.PULL_POLICY_ALWAYS,
    "missing": objects_pb2.PULL_POLICY_MISSING,
    "if_not_present": objects_pb2.PULL_POLICY_MISSING,
    "never": objects_pb2.PULL_POLICY_NEVER,
}


def read_pull_policy(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    text = reader.text(field)
    if text in POLICIES:
        container.pull_policy = POLICIES[text]
    elif text == "build":
        reader.refuse(field, "nothing is built here; write always, missing or never")
    else:
        reader.refuse(
            field, f"{text!r} is not possible: an image is pulled at a deploy; write always, missing or never"
        )
