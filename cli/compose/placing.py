"""Where tasks go besides constraints: `placement.preferences`, `max_replicas_per_node` and `x-fairway.placement`."""

from __future__ import annotations

import re

from cli.compose.reader import Field, Reader
from proto import objects_pb2

_KEY = re.compile(r"node\.[A-Za-z0-9_./-]+")
_CONSTRAINT = re.compile(r"(node\.[A-Za-z0-9_./-]+)\s*(==|!=)\s*(\S.*)")
_SPREAD_MAX = 3
_PER_NODE_MAX = 10_000
_AFFINITIES_MAX = 8
_WEIGHT_MAX = 100


def read_preferences(reader: Reader, field: Field, placement: objects_pb2.Placement) -> None:
    """As in Swarm: a list of `spread: node.labels.X`, the first counts most."""
    elements = reader.elements(field)
    if len(elements) > _SPREAD_MAX:
        reader.refuse(field, f"has more than {_SPREAD_MAX} preferences")
        return
    for each in elements:
        entries = reader.known_entries(each, frozenset({"spread"}))
        if "spread" not in entries:
            reader.refuse(each, "has no spread")
        elif key := _read_key(reader, entries["spread"]):
            placement.spread_over.append(key)


def read_per_node_max(reader: Reader, field: Field, placement: objects_pb2.Placement) -> None:
    """0 is no bound, as in Swarm."""
    if most := reader.integer(field, 0, _PER_NODE_MAX):
        placement.per_node_max = most


def read_placement(reader: Reader, field: Field, placement: objects_pb2.Placement) -> None:
    """`x-fairway.placement`."""
    entries = reader.known_entries(field, frozenset({"strategy", "affinity", "anti_affinity"}))
    if "strategy" in entries and reader.choice(entries["strategy"], {"spread": False, "pack": True}, False):
        placement.pack = True
    for key in ("affinity", "anti_affinity"):
        for each in reader.elements(entries[key]) if key in entries else ():
            affinity = _read_affinity(reader, each)
            if affinity is not None:
                affinity.anti = key == "anti_affinity"
                placement.affinities.append(affinity)
    if len(placement.affinities) > _AFFINITIES_MAX:
        reader.refuse(field, f"has more than {_AFFINITIES_MAX} affinities")


def _read_affinity(reader: Reader, field: Field) -> objects_pb2.Affinity | None:
    entries = reader.known_entries(field, frozenset({"service", "constraint", "same", "required", "weight"}))
    affinity = objects_pb2.Affinity()
    if ("service" in entries) == ("constraint" in entries):
        reader.refuse(field, "says neither service nor constraint" if "service" not in entries else "says both")
        return None
    if "required" in entries:
        affinity.required = reader.boolean(entries["required"])
    if "weight" in entries:
        affinity.weight = reader.integer(entries["weight"], 1, _WEIGHT_MAX)
        if affinity.required:
            reader.refuse(entries["weight"], "has no effect where it is required")
    if "service" in entries:
        affinity.service = reader.text(entries["service"])
        if "same" in entries and reader.text(entries["same"]) != "host":
            affinity.same = _read_key(reader, entries["same"])
        return affinity
    if "same" in entries:
        reader.refuse(entries["same"], "goes with service, not with constraint")
    if affinity.required:
        reader.refuse(entries["required"], "goes with service; for hosts use deploy.placement.constraints")
    text = reader.text(entries["constraint"])
    match = _CONSTRAINT.fullmatch(text.strip())
    if match is None:
        reader.refuse(entries["constraint"], f'{text!r} is not a constraint; write it like "node.labels.disk == ssd"')
        return None
    affinity.constraint = f"{match[1]} {match[2]} {match[3].strip()}"
    return affinity


def _read_key(reader: Reader, field: Field) -> str:
    text = reader.text(field).strip()
    if _KEY.fullmatch(text) is None:
        reader.refuse(field, f'{text!r} is not a property of hosts; write it like "node.labels.zone"')
        return ""
    return text
