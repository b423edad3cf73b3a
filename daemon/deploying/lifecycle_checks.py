"""Hooks and init tasks of a service: what they may say, what of them changed, and which images are meant. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from typing import Literal

from daemon.orchestration.image_lookup import find_image
from proto import objects_pb2 as objects
from proto.container_rules import HOOKS_MAX, INIT_TASKS_MAX
from raft.store import Store
from runtime.errors import InvalidRequest
from runtime.references import normalise_reference

_HOOKS: tuple[Literal["post_start", "pre_stop"], ...] = ("post_start", "pre_stop")


def lifecycle_problems(container: objects.ContainerSpec) -> Iterator[str]:
    for when in _HOOKS:
        hooks = getattr(container, when)
        if len(hooks) > HOOKS_MAX:
            yield f"it has {len(hooks)} {when} hooks; at most {HOOKS_MAX} are possible"
        for hook in hooks:
            if not hook.command:
                yield f"one of its {when} hooks has no command"
            yield from _process_problems(f"{when} hook", hook.working_dir, hook.environment)
    if len(container.init_tasks) > INIT_TASKS_MAX:
        yield f"it has {len(container.init_tasks)} init tasks; at most {INIT_TASKS_MAX} are possible"
    for init in container.init_tasks:
        if init.image:
            try:
                normalise_reference(init.image)
            except InvalidRequest as error:
                yield f"one of its init tasks: {error}"
        yield from _process_problems("init task", init.working_dir, init.environment)


def _process_problems(what: str, working_dir: str, environment: Mapping[str, str]) -> Iterator[str]:
    if working_dir and not working_dir.startswith("/"):
        yield f"the working_dir {working_dir!r} of a {what} is not an absolute path"
    if any(not name or "=" in name for name in environment):
        yield f"a {what} has a variable whose name is empty or has a ="


def lifecycle_changes(old: objects.ContainerSpec, new: objects.ContainerSpec) -> list[str]:
    """Reasons why tasks are replaced."""
    reasons = [f"{when} hooks changed" for when in _HOOKS if getattr(old, when) != getattr(new, when)]
    if old.init_tasks != new.init_tasks:
        reasons.append("init tasks changed")
    return reasons


def settle_init_images(
    store: Store, container: objects.ContainerSpec, before: objects.ContainerSpec | None, warnings: MutableSequence[str]
) -> None:
    """Notes in place what the images' names stand for now; where that is not known, what they stood for before."""
    known = {init.image: init.image_digest for init in before.init_tasks} if before is not None else {}
    for init in container.init_tasks:
        if not init.image:
            continue
        image = find_image(store, init.image)
        init.image_digest = image.manifest_digest if image is not None else known.get(init.image, "")
        if not init.image_digest:
            warnings.append(
                f"image {init.image} of an init task is not in the cluster: load it with `fairway image load FILE`"
            )
