"""Random identifiers of objects and requests."""

from __future__ import annotations

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
LENGTH = 26  # 130 bits


def new_id() -> str:
    """A fresh id of 26 characters; unguessable, and unique without asking anybody."""
    return "".join(ALPHABET[byte & 31] for byte in secrets.token_bytes(LENGTH))


def is_id(text: str) -> bool:
    """Whether `new_id` may have made it."""
    return len(text) == LENGTH and set(text) <= set(ALPHABET)
