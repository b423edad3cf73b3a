"""What differs between the kinds of two versions of a service, in words. Pure."""

from __future__ import annotations

from proto import objects_pb2 as objects

KIND_WORDS = {
    objects.SERVICE_KIND_REPLICATED: "replicated",
    objects.SERVICE_KIND_GLOBAL: "global",
    objects.SERVICE_KIND_JOB: "replicated-job",
    objects.SERVICE_KIND_GLOBAL_JOB: "global-job",
}


def kind_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why tasks are replaced."""
    reasons = []
    if before.kind != after.kind:
        reasons.append(f"mode {KIND_WORDS[before.kind]} -> {KIND_WORDS[after.kind]}")
    if before.stateful != after.stateful or before.HasField("stateful") != after.HasField("stateful"):
        words = [_stateful(spec) for spec in (before, after)]
        reasons.append(f"{words[0]} -> {words[1]}")
    return reasons


def _stateful(spec: objects.ServiceSpec) -> str:
    if not spec.HasField("stateful"):
        return "not stateful"
    return "stateful, unordered" if spec.stateful.unordered else "stateful"
