"""Clients of the public API that write and read registers, and note what they saw.

A register is a label of a host: `UpdateNode` writes it, `ListNodes`, which demands the newest state, reads it.
A register is used for a while and then left for good, so that every history stays short enough to be judged.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from proto import control_pb2 as control
from proto import control_pb2_grpc as control_grpc
from raft.simulation.linearizable import FOREVER, Operation

CALL_SECONDS_MAX = 5.0
PAUSE_SECONDS = 0.03  # between two operations of a client
REFUSED_PAUSE_SECONDS = 0.3
REGISTERS = 4  # in use at a time
LIFE_SECONDS = 10.0  # of a register
NODE = "host-1"

# What the cluster says where it did not even begin; anything else leaves the outcome open.
NOTHING_WAS_CHANGED = ("no leader:", "nothing was changed", "belongs to no cluster", "failed to connect")


class History:
    """What happened to every register, from all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: dict[str, list[Operation]] = {}
        self.acknowledged_writes = 0
        self.answered_reads = 0
        self.open_outcomes = 0
        self.refused = 0

    def add(self, register: str, operation: Operation) -> None:
        with self._lock:
            self._operations.setdefault(register, []).append(operation)
            if operation.kind == "read":
                self.answered_reads += 1
            elif operation.succeeded is None:
                self.open_outcomes += 1
            else:
                self.acknowledged_writes += 1

    def add_refused(self) -> None:
        with self._lock:
            self.refused += 1

    def registers(self) -> dict[str, list[Operation]]:
        """A copy; register -> its operations."""
        with self._lock:
            return {register: list(operations) for register, operations in self._operations.items()}


class Clients:
    """Threads that work until `stop`; each operation goes to a host of its own choice."""

    def __init__(self, sockets: list[Path], seed: int, count: int) -> None:
        self.history = History()
        self._sockets = sockets
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, args=(number, random.Random(f"{seed}-{number}")), daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when every client has ended its last operation."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int, choose: random.Random) -> None:
        channels = [grpc.insecure_channel(f"unix:{socket}") for socket in self._sockets]
        count = 0
        try:
            while not self._stopping.wait(PAUSE_SECONDS):
                stub = control_grpc.ControlStub(choose.choice(channels))
                epoch = int((time.monotonic() - self._began) / LIFE_SECONDS)
                register = f"r{epoch}-{choose.randrange(REGISTERS)}"
                count += 1
                if choose.random() < 0.5:
                    served = self._read(stub, register)
                else:
                    served = self._write(stub, register, f"{number}-{count}", f"r{epoch - 2}-")
                if not served:
                    self._stopping.wait(REFUSED_PAUSE_SECONDS)
        finally:
            for channel in channels:
                channel.close()

    def _write(self, stub: control_grpc.ControlStub, register: str, value: str, left_prefix: str) -> bool:
        request = control.UpdateNodeRequest(node=NODE)
        request.set_labels[register] = value
        invoked = time.monotonic()
        outcome = _called(lambda: stub.UpdateNode(request, timeout=CALL_SECONDS_MAX))
        if isinstance(outcome, str):
            if any(words in outcome for words in NOTHING_WAS_CHANGED):
                self.history.add_refused()
            else:
                self.history.add(register, Operation(invoked, FOREVER, "write", value, succeeded=None))
            return False
        self.history.add(register, Operation(invoked, time.monotonic(), "write", value))
        left = [label for label in outcome.node.meta.labels if label.startswith(left_prefix)]
        if left:
            # Registers that nobody uses any more; where somebody else was quicker this is refused.
            _called(
                lambda: stub.UpdateNode(
                    control.UpdateNodeRequest(node=NODE, remove_labels=left), timeout=CALL_SECONDS_MAX
                )
            )
        return True

    def _read(self, stub: control_grpc.ControlStub, register: str) -> bool:
        invoked = time.monotonic()
        outcome = read_register(stub, register)
        if isinstance(outcome, str):
            self.history.add_refused()
            return False
        self.history.add(register, Operation(invoked, time.monotonic(), "read", outcome[0]))
        return True


def read_register(stub: control_grpc.ControlStub, register: str) -> tuple[str | None] | str:
    """(value,), or why it could not be read."""
    reply = _called(lambda: stub.ListNodes(control.ListNodesRequest(node=NODE), timeout=CALL_SECONDS_MAX))
    if isinstance(reply, str):
        return reply
    return (reply.nodes[0].node.meta.labels.get(register),)


def _called(call: Callable[[], Any]) -> Any:
    """The reply, or as a string why there is none."""
    try:
        return call()
    except grpc.RpcError as error:
        details = getattr(error, "details", lambda: "")()
        return f"{getattr(error, 'code', lambda: '?')()}: {details}"
