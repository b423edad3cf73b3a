"""The list of hops that a trace makes, and words that several of them need. Pure."""

from __future__ import annotations

from collections.abc import Collection

from daemon.doctor.host_findings_plan import several
from proto.doctor_pb2 import (
    HOP_OUTCOME_FAILED,
    HOP_OUTCOME_NOTE,
    HOP_OUTCOME_OK,
    HOP_OUTCOME_SKIPPED,
    TraceHop,
)

REPAIRED = "fairwayd repairs it within seconds; find who changes it"


class Walk:
    """Collects hops."""

    def __init__(self) -> None:
        self.hops: list[TraceHop] = []

    def ok(self, hop: str, where: str, message: str) -> None:
        self.hops.append(TraceHop(hop=hop, where=where, outcome=HOP_OUTCOME_OK, message=message))

    def fail(self, hop: str, where: str, message: str, advice: str) -> None:
        self.hops.append(TraceHop(hop=hop, where=where, outcome=HOP_OUTCOME_FAILED, message=message, advice=advice))

    def note(self, hop: str, where: str, message: str, advice: str = "") -> None:
        self.hops.append(TraceHop(hop=hop, where=where, outcome=HOP_OUTCOME_NOTE, message=message, advice=advice))

    def skip(self, hop: str, where: str, message: str) -> None:
        self.hops.append(TraceHop(hop=hop, where=where, outcome=HOP_OUTCOME_SKIPPED, message=message))


def filters_in_words(filters: Collection[str]) -> str:
    return f"; packet filters of other programs that may drop it: {several(list(filters))}" if filters else ""


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
