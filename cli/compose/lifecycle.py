"""`post_start`, `pre_stop`, and `init_tasks` of `x-fairway`: what runs in or before a service's containers.

https://github.com/compose-spec/compose-spec/blob/main/05-services.md#post_start
"""

from __future__ import annotations

from typing import Literal

from cli.compose import values
from cli.compose.environment import Surroundings, read_environment
from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.container_rules import HOOKS_MAX, INIT_TASKS_MAX

HOOK_KEYS = frozenset({"command", "user", "working_dir", "environment", "privileged"})
INIT_KEYS = frozenset({"image", "entrypoint", "command", "user", "working_dir", "environment"})
_WHEN: tuple[Literal["post_start", "pre_stop"], ...] = ("post_start", "pre_stop")


def command_words(reader: Reader, field: Field) -> objects_pb2.StringList | None:
    """Absent for null; a text is split as a shell would split it."""
    if field.is_null:
        return None
    if field.is_list:
        return objects_pb2.StringList(values=[reader.text(each, empty=True) for each in reader.elements(field)])
    try:
        return objects_pb2.StringList(values=values.words(reader.text(field, empty=True)))
    except ValueError as error:
        reader.refuse(field, str(error))
        return None


def read_lifecycle(
    reader: Reader, surroundings: Surroundings, entries: dict[str, Field], container: objects_pb2.ContainerSpec
) -> None:
    """Fills `container` from the keys of a service."""
    for when in _WHEN:
        if when in entries:
            elements = reader.elements(entries[when])
            _bound(reader, entries[when], len(elements), HOOKS_MAX)
            for each in elements:
                _hook(reader, surroundings, each, getattr(container, when).add())
    extension = entries.get("x-fairway")
    if extension is not None and extension.is_mapping and (init := reader.entries(extension).get("init_tasks")):
        elements = reader.elements(init)
        _bound(reader, init, len(elements), INIT_TASKS_MAX)
        for each in elements:
            _init_task(reader, surroundings, each, container.init_tasks.add())


def _bound(reader: Reader, field: Field, count: int, count_max: int) -> None:
    if count > count_max:
        reader.refuse(field, f"has {count} entries; at most {count_max} are possible")


def _hook(reader: Reader, surroundings: Surroundings, field: Field, hook: objects_pb2.Hook) -> None:
    entries = reader.known_entries(field, HOOK_KEYS)
    words = command_words(reader, entries["command"]) if "command" in entries else None
    if words is None or not words.values:
        reader.refuse(field, "has no command")
    else:
        hook.command.extend(words.values)
    if "privileged" in entries and reader.boolean(entries["privileged"]):
        reader.unsupported(entries["privileged"], "a hook has the rights of its container")
    _process(reader, surroundings, entries, hook)


def _init_task(reader: Reader, surroundings: Surroundings, field: Field, init: objects_pb2.InitTask) -> None:
    entries = reader.known_entries(field, INIT_KEYS)
    if "image" in entries:
        init.image = reader.text(entries["image"])
        if any(character.isspace() for character in init.image):
            reader.refuse(entries["image"], f"{init.image!r} is not the name of an image")
    elif "command" not in entries and "entrypoint" not in entries:
        reader.refuse(field, "has neither an image nor a command: it would be the service itself")
    if "entrypoint" in entries and (words := command_words(reader, entries["entrypoint"])) is not None:
        init.entrypoint.CopyFrom(words)
    if "command" in entries and (words := command_words(reader, entries["command"])) is not None:
        init.command.CopyFrom(words)
    _process(reader, surroundings, entries, init)


def _process(
    reader: Reader,
    surroundings: Surroundings,
    entries: dict[str, Field],
    process: objects_pb2.Hook | objects_pb2.InitTask,
) -> None:
    if "user" in entries:
        process.user = reader.text(entries["user"])
    if "working_dir" in entries:
        process.working_dir = reader.text(entries["working_dir"])
        if process.working_dir and not process.working_dir.startswith("/"):
            reader.refuse(entries["working_dir"], f"{process.working_dir!r} is not an absolute path in the container")
    if "environment" in entries:
        read = objects_pb2.ContainerSpec()
        read_environment(reader, surroundings, {"environment": entries["environment"]}, read)
        process.environment.update(read.environment)
