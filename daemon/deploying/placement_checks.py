"""What must hold of a service's `placement`, and what of it differs between two versions, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration import constraints
from daemon.orchestration.kinds import follows_hosts
from proto import control_pb2 as control
from proto import objects_pb2 as objects

SPREAD_MAX = 3  # the scheduler's ranking has room for so many counts
AFFINITIES_MAX = 8
WEIGHT_MAX = 100


def says_placement(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know it would place tasks where they must not be."""
    return spec.HasField("placement")


def placement_problems(app: control.AppSpec, spec: objects.ServiceSpec) -> Iterator[str]:
    """Also raises Refused for a constraint or key that cannot be read."""
    placement = spec.placement
    if follows_hosts(spec) and (placement.spread_over or placement.per_node_max or placement.pack):
        yield "it has one task on each host: preferences, max_replicas_per_node and strategy have no effect"
    if len(placement.spread_over) > SPREAD_MAX:
        yield f"it is spread over {len(placement.spread_over)} properties of hosts; at most {SPREAD_MAX} are possible"
    if len(placement.affinities) > AFFINITIES_MAX:
        yield f"it has {len(placement.affinities)} affinities; at most {AFFINITIES_MAX} are possible"
    for key in placement.spread_over:
        constraints.check_key(key)
    for affinity in placement.affinities:
        if bool(affinity.service) == bool(affinity.constraint):
            yield "one of its affinities names neither a service nor a constraint, or both"
        elif affinity.service and affinity.service not in app.services:
            yield f"it is to be near or away from service {affinity.service}, which is not in the app"
        if affinity.constraint:
            constraints.parse(affinity.constraint)
            if affinity.required:
                yield f"{affinity.constraint} cannot be a required affinity: use a constraint"
        if affinity.same:
            constraints.check_key(affinity.same)
        if affinity.weight > WEIGHT_MAX:
            yield f"the weight {affinity.weight} of an affinity is above {WEIGHT_MAX}"


def placement_changes(before: objects.ServiceSpec, after: objects.ServiceSpec) -> list[str]:
    """Reasons why tasks are placed anew."""
    old, new = before.placement, after.placement
    if old == new:
        return []
    reasons = []
    if old.pack != new.pack:
        strategies = [("pack" if each.pack else "spread") for each in (old, new)]
        reasons.append(f"placement {strategies[0]} -> {strategies[1]}")
    if old.per_node_max != new.per_node_max:
        bounds = [str(each.per_node_max or "any number") for each in (old, new)]
        reasons.append(f"replicas on one host {bounds[0]} -> {bounds[1]}")
    if old.spread_over != new.spread_over:
        keys = [" then ".join(each.spread_over) or "hosts and zones" for each in (old, new)]
        reasons.append(f"spread over {keys[0]} -> {keys[1]}")
    if old.affinities != new.affinities:
        reasons.append("affinities changed")
    return reasons
