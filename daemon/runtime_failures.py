"""A failure of the runtime as an answer to who asked."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from runtime.errors import InvalidImage, InvalidRequest, NoSpace, NotFound, RuntimeFailure

_KINDS: dict[type[RuntimeFailure], Kind] = {
    NotFound: Kind.NOT_FOUND,
    NoSpace: Kind.EXHAUSTED,
    InvalidRequest: Kind.INVALID,
    InvalidImage: Kind.INVALID,
}


def refused(error: RuntimeFailure) -> Refused:
    """With the kind of what went wrong; never UNAVAILABLE, which means that the cluster does not answer."""
    kinds = (kind for failure, kind in _KINDS.items() if isinstance(error, failure))
    return Refused(str(error), next(kinds, Kind.NOT_POSSIBLE))
