"""What kind of service it is: `deploy.mode`, and what goes with it."""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from proto import objects_pb2

_MODES = {
    "replicated": objects_pb2.SERVICE_KIND_REPLICATED,
    "global": objects_pb2.SERVICE_KIND_GLOBAL,
}
_FOLLOWING = (objects_pb2.SERVICE_KIND_GLOBAL, objects_pb2.SERVICE_KIND_GLOBAL_JOB)


def read_mode(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """`deploy.mode`."""
    spec.kind = reader.choice(field, _MODES, objects_pb2.SERVICE_KIND_REPLICATED)


def finish_kind(reader: Reader, entries: dict[str, Field], spec: objects_pb2.ServiceSpec) -> None:
    """Checks what was said against the kind, when all of the service (`entries`) has been read."""
    deploy = reader.entries(entries["deploy"]) if "deploy" in entries else {}
    if spec.kind in _FOLLOWING:
        spec.replicas = 0
        for said in (entries.get("scale"), deploy.get("replicas")):
            if said is not None:
                reader.refuse(said, "has no meaning with a global mode, which runs one task on each host")
