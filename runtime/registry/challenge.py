"""What a registry answers to a request without permission: WWW-Authenticate (RFC 9110, 11.6.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PART = re.compile(rf'({_WORD})(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')
HEADER_LENGTH_MAX = 8192


@dataclass(frozen=True)
class Challenge:
    """`scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers, in order; what is not understood is passed over."""
    found: list[Challenge] = []
    for header in headers:
        for name, quoted, plain in _PART.findall(header[:HEADER_LENGTH_MAX]):
            if not quoted and not plain:
                found.append(Challenge(name.lower()))
            elif found:
                found[-1].parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
    return found


def find(challenges: Iterable[Challenge], scheme: str) -> Challenge | None:
    return next((challenge for challenge in challenges if challenge.scheme == scheme), None)
