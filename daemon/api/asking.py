"""Asks several hosts at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")

HOSTS_AT_ONCE_MAX = 128


async def ask_each(questions: Iterable[T], ask: Callable[[T], Awaitable[None]]) -> None:
    """Returns when every `ask` has; at most HOSTS_AT_ONCE_MAX run at a time, and each bounds its own time."""
    room = trio.CapacityLimiter(HOSTS_AT_ONCE_MAX)

    async def one(question: T) -> None:
        async with room:
            await ask(question)

    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(one, question)
