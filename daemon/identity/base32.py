"""Bytes as text that people can copy: Crockford's base 32, lower case, no padding."""

from __future__ import annotations

from daemon.ids import ALPHABET

_VALUES = {character: value for value, character in enumerate(ALPHABET)}
# Crockford's rule for reading: what people take for another character.
_VALUES |= {"o": 0, "i": 1, "l": 1}


def encode(data: bytes) -> str:
    """ceil(8 n / 5) characters; the first carries the highest bits, the last is filled up with zero bits."""
    length = (len(data) * 8 + 4) // 5
    number = int.from_bytes(data) << (length * 5 - len(data) * 8)
    return "".join(ALPHABET[number >> (5 * place) & 31] for place in range(length - 1, -1, -1))


def decode(text: str) -> bytes:
    """The inverse of `encode`, case and look-alikes forgiven.

    Raises ValueError: another character, or fill bits that are not zero.
    """
    number = 0
    for character in text.lower():
        if character not in _VALUES:
            raise ValueError(f"{character!r} is no character of base 32")
        number = number << 5 | _VALUES[character]
    size_bytes = len(text) * 5 // 8
    fill_bits = len(text) * 5 - size_bytes * 8
    if number & ((1 << fill_bits) - 1):
        raise ValueError("the last character is wrong")
    return (number >> fill_bits).to_bytes(size_bytes)
