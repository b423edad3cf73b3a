"""Which images services wait for that a registry may have, and when to ask for them again. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daemon.orchestration.image_lookup import find_image
from proto import objects_pb2 as objects
from raft.store import Store

AGAIN_S_MIN = 15.0
AGAIN_S_MAX = 900.0  # registries count what they refuse, too


@dataclass
class Try:
    """Of an image that did not come."""

    next_s: float
    wait_s: float
    failure: str

    @classmethod
    def after(cls, before: Try | None, now_s: float, failure: str) -> Try:
        wait_s = AGAIN_S_MIN if before is None else min(before.wait_s * 2, AGAIN_S_MAX)
        return cls(now_s + wait_s, wait_s, failure)


def wanted_images(store: Store) -> list[str]:
    """Names in files of services that the cluster has no image of, and that may be pulled; each once, sorted."""
    return sorted(
        {
            name
            for service in store.table(objects.Service)
            if not service.removing
            for name in unknown_images(service)
            if find_image(store, name) is None
        }
    )


def unknown_images(service: objects.Service) -> Iterator[str]:
    """Of its container and its init tasks, what may be pulled and is not resolved yet."""
    container = service.spec.container
    if container.pull_policy == objects.PULL_POLICY_NEVER:
        return
    if not service.image_digest:
        yield container.image
    for init in container.init_tasks:
        if init.image and not init.image_digest:
            yield init.image


def next_due(wanted: list[str], tries: dict[str, Try], now_s: float) -> tuple[str | None, float]:
    """The image to pull now, or None and for how many seconds to wait."""
    waits = []
    for name in wanted:
        before = tries.get(name)
        if before is None or before.next_s <= now_s:
            return name, 0.0
        waits.append(before.next_s - now_s)
    return None, min(waits, default=AGAIN_S_MAX)
