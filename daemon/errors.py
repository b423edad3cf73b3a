"""The one way in which a request is refused: a kind for programs, a sentence for people."""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """Why a request was refused; `daemon/api/grpc_errors.py` maps each to a gRPC status."""

    INVALID = "invalid"  # the request itself is wrong
    NOT_FOUND = "not found"
    CONFLICT = "conflict"  # a name, port or address is taken, or something changed meanwhile
    NOT_POSSIBLE = "not possible"  # right, but not in the state that the cluster is in
    DENIED = "denied"  # who asks may not
    UNAVAILABLE = "unavailable"  # no majority, no leader, or a host does not answer: try again
    EXHAUSTED = "exhausted"  # a pool, a disk or a quota is full


class Refused(Exception):
    """A request that changed nothing; `message` says what was asked, what is wrong and what to do."""

    def __init__(self, message: str, kind: Kind = Kind.INVALID) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
