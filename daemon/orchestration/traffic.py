"""Which of a service's ready tasks get traffic: all of them, but for the two sides of a blue/green change. Pure."""

from __future__ import annotations

from proto import objects_pb2 as objects


def gets_traffic(service: objects.Service | None, task: objects.Task) -> bool:
    """Whether a ready task is on the side that balancers and names send clients to."""
    if service is None or not service.HasField("traffic"):
        return True
    newer = task.generation >= service.traffic.generation
    return newer == service.traffic.switched


def kept_until_unix_ms(service: objects.Service) -> int | None:
    """Until when the older tasks of a blue/green change stay as they are: None while it has not switched."""
    if not service.traffic.switched:
        return None
    return service.traffic.switched_unix_ms + service.spec.rollout.keep_ms
