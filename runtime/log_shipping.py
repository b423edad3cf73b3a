"""Sends logs of tasks to their receivers, out of the files that are kept anyhow: what a receiver does not take waits
there, within the bounds of the log, and goes on from the same line after a restart of the daemon.

Every line is sent at least once, in order; again where it is not known whether it came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from proto.host_pb2 import LogLine
from runtime import log_files, log_reader, log_receiver
from runtime.log_reader import Position
from runtime.log_receiver import Place, Receiver
from runtime.log_sending import HTTP_THREADS_MAX, Rejected, Sender, sender_to

log = logging.getLogger(__name__)

SEND_S_MAX = 15.0
RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0
GATHER_S = 0.2  # lines that are sent together
LINES_MAX = 1_000  # of one message
READER_THREADS_MAX = 2
SAY_S = 3.0  # without a receiver, before the log says so


class Shipment:
    """What became of one log: numbers since this daemon began."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.sent_lines = 0
        self.refused_lines = 0  # that the receiver will never take
        self.overtaken_files = 0  # that were removed by their bounds before they were sent
        self.failures = 0  # attempts
        self.error = ""  # why nothing goes out at the moment
        self.failing_since_s = 0.0  # trio's clock; 0: it goes out

    def failed(self, error: str) -> None:
        self.failures += 1
        self.error = error
        self.failing_since_s = self.failing_since_s or trio.current_time()

    def worked(self) -> None:
        self.error, self.failing_since_s = "", 0.0


class LogShipping:
    """`change_of`: of a task's log, an event of its growth; None where it has ended. `note`: adds words to it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        change_of: Callable[[str], trio.Event | None],
        note: Callable[[str, str], None],
    ) -> None:
        self._nursery = nursery
        self._change_of = change_of
        self._note = note
        self._shipments: dict[str, tuple[Shipment, trio.CancelScope]] = {}
        self._readers = trio.CapacityLimiter(READER_THREADS_MAX)
        self._http = trio.CapacityLimiter(HTTP_THREADS_MAX)

    @property
    def shipments(self) -> Sequence[Shipment]:
        return [shipment for shipment, _ in self._shipments.values()]

    def look(self, task_id: str, folder: Path) -> None:
        """Begins to send a log that is to be sent and is not yet."""
        if task_id in self._shipments or (receiver := log_receiver.kept(folder)) is None:
            return
        shipment, scope = Shipment(receiver), trio.CancelScope()
        self._shipments[task_id] = shipment, scope
        self._nursery.start_soon(self._run, task_id, folder, shipment, scope)

    def stop(self, task_id: str) -> None:
        """The log is removed."""
        if task_id in self._shipments:
            self._shipments[task_id][1].cancel()

    async def _run(self, task_id: str, folder: Path, shipment: Shipment, scope: trio.CancelScope) -> None:
        sender = sender_to(shipment.receiver, self._http)
        try:
            with scope:
                await self._ship(task_id, folder, shipment, sender)
        except* Exception as group:  # one task's log must never end the others'
            log.error("log of task %s is not sent any more: %s", task_id, group.exceptions[0])
        finally:
            self._shipments.pop(task_id, None)
            with trio.CancelScope(shield=True):
                await sender.close()

    async def _ship(self, task_id: str, folder: Path, shipment: Shipment, sender: Sender) -> None:
        place = Place(folder)
        while True:
            changed = self._change_of(task_id)  # before reading: no change goes unseen
            lines, after = await trio.to_thread.run_sync(
                log_reader.read_batch, folder, place.position, limiter=self._readers
            )
            if after == place.position:
                if changed is None:
                    log_receiver.forget(folder)
                    return
                await changed.wait()
                await trio.sleep(GATHER_S)
                continue
            for first in range(0, len(lines), LINES_MAX):
                await self._bring(task_id, lines[first : first + LINES_MAX], shipment, sender)
            shipment.overtaken_files += _skipped(folder, place.position, after)
            place.move(after)

    async def _bring(self, task_id: str, lines: Sequence[LogLine], shipment: Shipment, sender: Sender) -> None:
        """Until they are there, with longer and longer rests."""
        rest_s, said = RETRY_S_MIN, False
        while True:
            try:
                with trio.fail_after(SEND_S_MAX):
                    await sender.send(lines)
            except Rejected as rejected:
                log.error("log of task %s: %s", task_id, rejected)
                shipment.refused_lines += len(lines)
                break
            except (OSError, trio.TooSlowError) as error:
                await sender.close()
                shipment.failed(str(error) or f"no answer within {SEND_S_MAX:.0f} s")
                if not said and trio.current_time() - shipment.failing_since_s >= SAY_S:
                    said = True
                    self._say(task_id, f"{_name(shipment)} takes nothing: {shipment.error}; lines wait here")
                await trio.sleep(rest_s)
                rest_s = min(RETRY_S_MAX, rest_s * 2)
            else:
                shipment.sent_lines += len(lines)
                if said:
                    self._say(task_id, f"{_name(shipment)} takes lines again")
                break
        shipment.worked()

    def _say(self, task_id: str, words: str) -> None:
        log.warning("log of task %s: %s", task_id, words)
        self._note(task_id, words)


def _name(shipment: Shipment) -> str:
    return f"{shipment.receiver.driver} at {shipment.receiver.address}"


def _skipped(folder: Path, before: Position, after: Position) -> int:
    """Files between two positions that are gone."""
    if after.number <= before.number + 1 or not before.number:
        return 0
    present = set(log_files.numbers(folder))
    return sum(number not in present for number in range(before.number + 1, after.number))
