"""Connections between members, one for each direction, as raft/transport.py has them, in bad weather.

Within a connection messages keep their order unless the weather has disorder. When one breaks, what was on its
way is lost or arrives late, behind what the next connection carries. A blocked way says nothing to its
sender: messages vanish, or wait and arrive together afterwards.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from raft.codec import decode, encode
from raft.messages import Message, SnapshotChunk
from raft.simulation.events import Events
from raft.simulation.plan import Weather

LATE_SECONDS_MAX = 1.5
PAST_MAX = 4000


@dataclass
class _Way:
    up: bool = False
    number: int = 0  # counts the connections
    last_at: float = 0.0
    blocked_until: float = 0.0
    held: bool = False  # what is sent while blocked arrives later


class Network:
    """`arrive(sender, receiver, message)` is called for what arrives, `changed(sender, receiver, up)` for ways."""

    def __init__(
        self,
        events: Events,
        dice: random.Random,
        weather: Weather,
        codec: bool,
        counts: Counter[str],
        arrive: Callable[[str, str, Message], None],
        changed: Callable[[str, str, bool], None],
    ) -> None:
        self.weather = weather
        self._events, self._dice, self._codec, self._arrive, self._changed = events, dice, codec, arrive, changed
        self._counts = counts
        self._ways: dict[tuple[str, str], _Way] = {}
        self._past: deque[tuple[str, str, Message]] = deque(maxlen=PAST_MAX)

    def is_up(self, sender: str, receiver: str) -> bool:
        return self._way(sender, receiver).up

    def connect(self, sender: str, receiver: str) -> None:
        """A new connection: its messages follow none of the old one."""
        way = self._way(sender, receiver)
        if not way.up:
            way.up = True
            way.last_at = self._events.now
            self._changed(sender, receiver, True)

    def disconnect(self, sender: str, receiver: str) -> None:
        """The connection breaks and its sender hears of it."""
        way = self._way(sender, receiver)
        if way.up:
            way.up = False
            way.number += 1
            self._counts["connections broken"] += 1
            self._changed(sender, receiver, False)

    def block(self, sender: str, receiver: str, seconds: float, held: bool) -> None:
        """Nothing gets through for a while, and nobody is told."""
        way = self._way(sender, receiver)
        way.blocked_until = max(way.blocked_until, self._events.now + seconds)
        way.held = held

    def echo(self, receiver: str, count: int, of: str = "") -> None:
        """Messages to a member, of one or of all, that were long thought lost or dealt with arrive again."""
        past = [one for one in self._past if one[1] == receiver and of in ("", one[0])]
        self._counts["messages of long ago again"] += min(count, len(past))
        for sender, _, message in self._dice.sample(past, min(count, len(past))):
            self._events.after(self._dice.random() * 0.05, self._arrive, sender, receiver, message)

    def heal(self) -> None:
        """Fine weather from now on."""
        self.weather = Weather()
        for way in self._ways.values():
            way.blocked_until = 0.0

    def send(self, sender: str, receiver: str, message: Message) -> None:
        """Puts a message on its way, if there is one."""
        way, weather, dice = self._way(sender, receiver), self.weather, self._dice
        if not way.up:
            return
        now = self._events.now
        counts = self._counts
        counts["messages"] += 1
        if way.blocked_until > now:
            counts["messages held by a partition" if way.held else "messages lost by a partition"] += 1
            if not way.held:
                return
        if weather.loss and dice.random() < weather.loss:
            counts["messages lost"] += 1
            return
        if isinstance(message, SnapshotChunk):
            counts["pieces of snapshots"] += 1
            if weather.corruption and dice.random() < weather.corruption:
                counts["pieces of snapshots damaged"] += 1
                message = _corrupted(message, dice)
        if self._codec:
            message = decode(encode(message))
        self._past.append((sender, receiver, message))
        shortest, longest = weather.delay_seconds
        at = max(now, way.blocked_until) + shortest + (longest - shortest) * dice.random()
        counts["messages delayed by 50 ms and more"] += at - now >= 0.05
        if not weather.disorder or dice.random() > weather.disorder:
            at = way.last_at = max(way.last_at, at)
        elif at < way.last_at:
            counts["messages that overtook others"] += 1
        self._events.at(at, self._deliver, way, way.number, sender, receiver, message)
        if weather.repetition and dice.random() < weather.repetition:
            counts["messages repeated"] += 1
            again = at + dice.random() * LATE_SECONDS_MAX * dice.random()
            self._events.at(again, self._deliver, way, way.number, sender, receiver, message)

    def _deliver(self, way: _Way, number: int, sender: str, receiver: str, message: Message) -> None:
        if way.number != number:
            # Of a connection that broke: half of it was in the receiver's buffers already.
            if self._dice.random() < 0.5:
                self._counts["messages behind the next connection's"] += 1
                late = self._dice.random() * LATE_SECONDS_MAX
                self._events.after(late, self._arrive, sender, receiver, message)
            else:
                self._counts["messages lost with a connection"] += 1
            return
        self._arrive(sender, receiver, message)

    def _way(self, sender: str, receiver: str) -> _Way:
        way = self._ways.get((sender, receiver))
        if way is None:
            way = self._ways[sender, receiver] = _Way()
        return way


def _corrupted(chunk: SnapshotChunk, dice: random.Random) -> SnapshotChunk:
    if not chunk.data:
        return chunk
    position = dice.randrange(len(chunk.data))
    changed = bytes([chunk.data[position] ^ 1 << dice.randrange(8)])
    return replace(chunk, data=chunk.data[:position] + changed + chunk.data[position + 1 :])
