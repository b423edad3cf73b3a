"""How much of the join port strangers may use: connections at once, and guesses of tokens."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class JoinLimits:
    """Bounds of one join server."""

    connections_max: int = 64
    connections_per_address_max: int = 16
    exchange_ms_max: int = 10_000  # handshake, greeting and request of one connection
    register_ms_max: int = 20_000  # the leader's part, a commit included
    relay_connect_ms_max: int = 3_000
    relay_ms_max: int = 35_000  # above the two of the leader together
    relay_bytes_max: int = 2 << 20  # each way
    wrong_tokens_max: int = 10  # from one address in one window
    wrong_token_window_ms: int = 60_000
    wrong_token_addresses_max: int = 1024  # remembered


class WrongTokens:
    """Counts wrong tokens by address in windows of fixed length; pure, time is an argument.

    A secret has 160 bits: this bounds the noise in the log and the work, not the chance to guess one.
    Through a voter that relays, all hosts have that voter's address.
    """

    def __init__(self, limits: JoinLimits) -> None:
        self._limits = limits
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # window's begin in ms, count

    def wait_ms(self, address: str, now_ms: float) -> float:
        """How long `address` has to wait before it may try again; 0: it may now."""
        begun_ms, count = self._counts.get(address, (now_ms, 0))
        left_ms = begun_ms + self._limits.wrong_token_window_ms - now_ms
        return max(0.0, left_ms) if count >= self._limits.wrong_tokens_max else 0.0

    def note(self, address: str, now_ms: float) -> None:
        """A wrong token came from `address`; beyond the bound the address longest unheard of is forgotten."""
        begun_ms, count = self._counts.pop(address, (now_ms, 0))
        if now_ms - begun_ms >= self._limits.wrong_token_window_ms:
            begun_ms, count = now_ms, 0
        self._counts[address] = (begun_ms, count + 1)
        while len(self._counts) > self._limits.wrong_token_addresses_max:
            self._counts.popitem(last=False)
