"""Join tokens: `fairway-ROLE-ID-SECRET-CA`, all but the role in base 32.

The store keeps the secret's hash only; the CA's fingerprint lets a host know the cluster before it trusts
anything; the role in the text is for the reader, the stored object decides.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from daemon.errors import Refused
from daemon.identity import base32
from daemon.ids import ALPHABET, LENGTH
from proto import objects_pb2 as objects

SECRET_BYTES = 20
VALID_MS_DEFAULT = 24 * 3_600_000
TEXT_CHARACTERS_MAX = 256

_ROLE_WORDS: dict[str, objects.NodeRole.ValueType] = {
    "voter": objects.NODE_ROLE_VOTER,
    "worker": objects.NODE_ROLE_WORKER,
}
_FINGERPRINT_BYTES = 32


@dataclass(frozen=True)
class ParsedToken:
    """A token as a person gave it; its repr hides the secret, so that no log can have it."""

    role: objects.NodeRole.ValueType
    token_id: str
    secret: bytes = field(repr=False)
    ca_sha256: bytes


def create(
    token_id: str, name: str, role: objects.NodeRole.ValueType, expires_unix_ms: int, ca_sha256: bytes
) -> tuple[objects.JoinToken, str]:
    """The object to store and the text to show once; `name` may be empty. Raises Refused: no such role."""
    words = [word for word, value in _ROLE_WORDS.items() if value == role]
    if not words:
        raise Refused("a join token needs a role: voter or worker")
    secret = secrets.token_bytes(SECRET_BYTES)
    token = objects.JoinToken(
        meta=objects.Meta(id=token_id, name=name or f"{words[0]}-{token_id[:6]}", tenant="default", format=1),
        secret_sha256=hashlib.sha256(secret).digest(),
        role=role,
        expires_unix_ms=expires_unix_ms,
    )
    text = "-".join(("fairway", words[0], token_id, base32.encode(secret), base32.encode(ca_sha256)))
    return token, text


def parse(text: str) -> ParsedToken:
    """Raises Refused: not a token, or one that was not copied whole. No message repeats the text."""
    parts = text.strip().lower().split("-") if len(text) <= TEXT_CHARACTERS_MAX else []
    if not parts or parts[0] != "fairway":
        raise Refused("this is not a join token: one begins with 'fairway-'; `fairway token create` makes one")
    if len(parts) != 5 or parts[1] not in _ROLE_WORDS:
        raise Refused("the join token is not complete: it reads fairway-(voter|worker)-ID-SECRET-CA; copy all of it")
    _, role, token_id, secret_text, fingerprint_text = parts
    try:
        secret, ca_sha256 = base32.decode(secret_text), base32.decode(fingerprint_text)
    except ValueError as error:
        raise Refused(f"the join token has a typing mistake in it ({error}); copy it again") from None
    whole = len(secret) == SECRET_BYTES and len(ca_sha256) == _FINGERPRINT_BYTES
    if not whole or re.fullmatch(f"[{ALPHABET}]{{{LENGTH}}}", token_id) is None:
        raise Refused("the join token was cut short or has a typing mistake in it; copy all of it")
    return ParsedToken(_ROLE_WORDS[role], token_id, secret, ca_sha256)


def check(token: objects.JoinToken | None, secret: bytes, now_unix_ms: int) -> str | None:
    """None where `secret` admits a host now, else why not, in words.

    Only who knows the secret learns that a token has expired or was revoked. The hashes are compared in
    constant time, and for an unknown token a comparison is made too.
    """
    stored = token.secret_sha256 if token is not None else bytes(32)
    same = hmac.compare_digest(hashlib.sha256(secret).digest(), stored)
    if token is None or not same:
        return (
            "the join token is not known to this cluster: it was removed or mistyped; "
            "make another with `fairway token create`"
        )
    if token.revoked:
        return "the join token was revoked; make another with `fairway token create`"
    if now_unix_ms >= token.expires_unix_ms:
        return "the join token has expired; make another with `fairway token create`"
    return None
