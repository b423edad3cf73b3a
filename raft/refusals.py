"""Who was refused at the raft port: said once, not once a try, and remembered in bounded room."""

from __future__ import annotations

import logging
from collections import OrderedDict

log = logging.getLogger(__name__)

REPEAT_S_MIN = 60.0  # the same refusal is not said again before
REMEMBERED_MAX = 256  # (who, why) pairs; the one that is longest ago is forgotten
LINES_MINUTE_MAX = 20  # of all refusals together: addresses can be many
TEXT_CHARACTERS_MAX = 200


class Refusals:
    """Counts and logs. Belongs to the raft thread."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # -> (when, times since)
        self._minute = float("-inf")
        self._lines = 0

    def note(self, who: str, why: str, now: float) -> bool:
        """One refusal of `who` (a node id or an address); whether it was logged. `now`: monotonic seconds."""
        key = (who[:TEXT_CHARACTERS_MAX], why[:TEXT_CHARACTERS_MAX])
        said_at, times = self._said.pop(key, (float("-inf"), 0))
        say = now - said_at >= REPEAT_S_MIN and self._line_free(now)
        self._said[key] = (now, 0) if say else (said_at, times + 1)
        if len(self._said) > REMEMBERED_MAX:
            self._said.popitem(last=False)
        if say:
            again = f" ({times} times more since it was last said)" if times else ""
            log.warning("raft port: refused %s: %s%s", *key, again)
        return say

    def _line_free(self, now: float) -> bool:
        if now - self._minute >= 60.0:
            self._minute, self._lines = now, 0
        self._lines += 1
        return self._lines <= LINES_MINUTE_MAX


class Newcomers:
    """Connections that have not shown a certificate yet: bounded for each address, so that one cannot take
    the room of all."""

    def __init__(self, address_max: int) -> None:
        self._open: dict[str, int] = {}
        self._address_max = address_max

    def enter(self, address: str) -> bool:
        """Whether another one may begin; `leave` must follow where it may."""
        count = self._open.get(address, 0)
        if count >= self._address_max:
            return False
        self._open[address] = count + 1
        return True

    def leave(self, address: str) -> None:
        count = self._open[address] - 1
        if count:
            self._open[address] = count
        else:
            del self._open[address]
