"""Answers queries over UDP in a thread of its own: whatever else the daemon does, names are answered.

The thread only waits in the kernel. What it cannot answer from names and kept answers goes to the trio thread.
"""

from __future__ import annotations

import logging
import socket as plain_socket
import threading
import time
from collections.abc import Callable

import trio

from net import dns_message as message
from net.dns_answers import Answers, Packets, Passed
from net.dns_datagrams import DatagramBatch, wake
from net.dns_limits import AskerState, Limits
from net.dns_upstream import Upstream
from net.model import Counters

log = logging.getLogger(__name__)

FORWARDED_MAX = 1024  # under way at a time, of one socket
STOP_SECONDS_MAX = 5.0

# Query, asker's address and port.
Forward = Callable[[Passed, tuple[str, int]], None]


class UdpService:
    """One socket and its thread. `run` is called once."""

    def __init__(self, socket: plain_socket.socket, answers: Answers, upstream: Upstream, counters: Counters) -> None:
        self._socket = socket
        self._answers = answers
        self._upstream = upstream
        self._counters = counters
        self._limits = Limits()
        self._forwarded = threading.BoundedSemaphore(FORWARDED_MAX)
        self._error: OSError | None = None

    async def run(self) -> None:
        """Answers until cancelled; raises OSError where the socket fails."""
        ended = trio.Event()
        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:

            def forward(passed: Passed, sender: tuple[str, int]) -> None:
                nursery.start_soon(self._forward, passed, sender)

            def hand_over(passed: Passed, sender: tuple[str, int]) -> None:
                token.run_sync_soon(forward, passed, sender)

            def work() -> None:
                try:
                    self._answer_all(hand_over)
                except OSError as error:
                    self._error = error
                except trio.RunFinishedError:
                    return
                token.run_sync_soon(ended.set)

            thread = threading.Thread(target=work, name="names", daemon=True)
            thread.start()
            try:
                await ended.wait()
            finally:
                wake(self._socket)
                thread.join(STOP_SECONDS_MAX)
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def _answer_all(self, hand_over: Forward) -> None:
        batch, limits, answers = DatagramBatch(self._socket.fileno()), self._limits, self._answers
        askers = limits.askers
        while count := batch.receive():
            limits.turn(time.monotonic())
            self._counters.dns_query_count += count
            ready = answers.ready
            for number in range(count):
                data, sender = batch.query(number), batch.sender(number)
                asker = askers.get(sender)
                if asker is None or asker.of is not ready:
                    asker = self._learn(sender)
                asker.points -= 1
                packets = asker.packets.get(data[2:])
                if packets is None or asker.points < 0:
                    packets = self._make(data, asker, batch.sender_port(number), hand_over)
                    if packets is None:
                        continue
                batch.answer(number, data[:2], packets[data[1] % len(packets)])
            batch.send()

    def _learn(self, sender: bytes) -> AskerState:
        asker = self._limits.askers.get(sender)
        if asker is None:
            asker = self._limits.askers[sender] = AskerState(plain_socket.inet_ntoa(sender))
        asker.of, packets = self._answers.ready_for(asker.address)
        asker.packets = {} if packets is None else packets
        return asker

    def _make(self, data: bytes, asker: AskerState, port: int, hand_over: Forward) -> Packets | None:
        """An answer that is not ready; None where there is none, or where it comes later."""
        if not self._limits.may_make(asker):
            self._counters.dns_refused_count += 1
            return None
        began = time.thread_time()
        try:
            found = self._answers.answer(data, asker.address)
            if not isinstance(found, Passed):
                return found
            if (kept := self._upstream.kept(found)) is not None:
                return (_fitted(found, kept)[2:],)
            if self._forwarded.acquire(blocking=False):
                hand_over(found, (asker.address, port))
            else:
                self._counters.dns_refused_count += 1
        except trio.RunFinishedError:
            raise
        except Exception:
            log.exception("answer a name query from %s", asker.address)
        finally:
            self._limits.made(time.thread_time() - began)
        return None

    async def _forward(self, passed: Passed, sender: tuple[str, int]) -> None:
        try:
            answer = await self._upstream.ask(passed, sender[0])
            self._socket.sendto(_fitted(passed, answer), plain_socket.MSG_DONTWAIT, sender)
        except OSError as error:
            log.debug("answer %s: %s", sender[0], error)
        except Exception:
            log.exception("pass a name query on for %s", sender[0])
        finally:
            self._forwarded.release()


def _fitted(passed: Passed, answer: bytes) -> bytes:
    return answer if len(answer) <= passed.query.udp_bytes_max else message.truncated(passed.query)
