"""How the number of a service's tasks follows their load, in words."""

from __future__ import annotations

from cli import words
from proto import objects_pb2


def scaling_row(service: objects_pb2.Service, now_unix_ms: int) -> str:
    """Empty where the number is what the operator says."""
    if not service.spec.HasField("autoscale"):
        return ""
    return scaling_words(service.spec.replicas, service.spec.autoscale, service.autoscaling, now_unix_ms)


def scaling_words(replicas: int, scale: objects_pb2.Autoscale, found: objects_pb2.Autoscaling, now_unix_ms: int) -> str:
    """ "3 tasks of 2 to 10 by load; steady, as of 5s ago: cpu of a task is ...; changed from 2 to 3 2m ago: ..." """
    text = f"{words.plural(replicas, 'task')} of {scale.replicas_min} to {scale.replicas_max} by load"
    if not found.state:
        return f"{text}; nothing is known of it yet"
    state = words.enum(objects_pb2.Autoscaling.State.DESCRIPTOR, found.state)
    text += f"; {state}, as of {words.age(found.looked_unix_ms, now_unix_ms)} ago: {found.message}"
    if found.changed_unix_ms:
        change = f"{found.replicas_before} to {found.replicas_after}"
        ago = words.age(found.changed_unix_ms, now_unix_ms)
        text += f"; changed from {change} {ago} ago: {found.changed_message}"
    return text
