"""What a node may be called, and what its labels may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME_CHARACTERS_MAX = 63
LABELS_MAX = 64
LABEL_CHARACTERS_MAX = 256

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")


def node_name_error(name: str) -> str | None:
    """None where `name` can be a node's: what RFC 1123 allows in a host name, in lower case."""
    if len(name) > NAME_CHARACTERS_MAX:
        return f"{name!r} is too long for a node's name: at most {NAME_CHARACTERS_MAX} characters"
    if _NAME.fullmatch(name) is None:
        return (
            f"{name!r} cannot be a node's name: use lower-case letters, digits, '-' and '.', "
            "and begin and end with a letter or digit"
        )
    return None


def node_name_from_hostname(hostname: str) -> str:
    """The name that a host gets when nobody chose one: its own, in lower case, without characters that a
    node's name cannot have; "host" where nothing is left."""
    kept = re.sub(r"[^a-z0-9.-]", "-", hostname.lower())[:NAME_CHARACTERS_MAX].strip("-.")
    return kept or "host"


def labels_error(labels: Mapping[str, str]) -> str | None:
    """None where `labels` can be a node's."""
    if len(labels) > LABELS_MAX:
        return f"{len(labels)} labels are given; a node has at most {LABELS_MAX}"
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None:
            return f"label {key!r} is not made of letters, digits, '.', '_', '/' and '-'"
        if len(key) > LABEL_CHARACTERS_MAX or len(value) > LABEL_CHARACTERS_MAX:
            return f"label {key[:40]!r} is longer than {LABEL_CHARACTERS_MAX} characters"
        if any(ord(character) < 32 for character in value):
            return f"the value of label {key!r} has a control character in it"
    return None
