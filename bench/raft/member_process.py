"""One member in a process of its own, told by JSON lines on standard input what to do.

    python -m bench.raft.member_process '{"folder": ..., "node_id": ..., "peers": {...}, "bootstrap": true}'

Each line is {"do": NAME, ...}; the answer is one line. Clients are tasks of this process's main loop: that
is the proposal interface as fairwayd's own parts use it.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio

from bench.raft.certificates import BenchTls
from bench.raft.load import VALUE_BYTES, Measurement
from proto import objects_pb2 as objects
from raft.member import Member, NotServed, Peer, RaftSettings
from raft.transaction import TransactionBuilder

LOOPBACK = "127.0.0.1"
FILL_AT_ONCE = 64
BURN_CHUNK = 100_000
SWITCH_SECONDS = 0.0005  # as fairwayd has it (daemon/main.py)


class Process:
    """The member and what may be asked of it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        folder = Path(arguments["folder"])
        self._peers = [Peer(node_id, LOOPBACK, port) for node_id, port in arguments["peers"].items()]
        node_id = arguments["node_id"]
        settings = RaftSettings(
            folder / node_id,
            node_id,
            LOOPBACK,
            arguments["peers"][node_id],
            bootstrap=arguments["bootstrap"],
            advertise_address=LOOPBACK,
        )
        self.member = Member(settings, self._peers, BenchTls(folder, node_id))
        self._value = secrets.token_bytes(VALUE_BYTES)
        self._count = 0

    async def status(self) -> dict[str, Any]:
        status = self.member.status()
        return {
            "role": status.role,
            "term": status.term,
            "quorum": status.quorum,
            "voters": list(status.voters),
            "objects": len(self.member.store.table(objects.JoinToken)),
        }

    async def add_voter(self, node_id: str) -> dict[str, Any]:
        await self.member.add_voter(next(peer for peer in self._peers if peer.node_id == node_id))
        return {}

    async def write(self, clients: int, seconds: float) -> dict[str, Any]:
        """Each client writes a new object and waits for it, again and again."""
        return await self._repeat(self._write_one, clients, seconds)

    async def read(self, clients: int, seconds: float) -> dict[str, Any]:
        """Each client reads an object that is certain to be current, again and again."""

        async def one() -> None:
            await self.member.read_barrier()
            self.member.store.get(objects.JoinToken, "nothing")

        return await self._repeat(one, clients, seconds)

    async def fill(self, count: int) -> dict[str, Any]:
        """Writes `count` objects, FILL_AT_ONCE at a time."""
        left = count

        async def client() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._write_one()

        async with trio.open_nursery() as nursery:
            for _ in range(FILL_AT_ONCE):
                nursery.start_soon(client)
        return {}

    async def first_write(self, seconds_max: float) -> dict[str, Any]:
        """Tries until a write is acknowledged here, or another member leads in a later term; its moment on the
        machine's monotonic clock."""
        term = self.member.status().term
        with trio.move_on_after(seconds_max):
            while True:
                try:
                    await self._write_one()
                    return {"at": time.monotonic()}
                except NotServed:
                    await trio.sleep(0.005)
                status = self.member.status()
                if status.term > term and status.role == "follower" and status.quorum:
                    break
        return {"at": None}

    async def burn(self, seconds: float) -> dict[str, Any]:
        """Holds the main thread with computing, as a scheduling pass would."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(BURN_CHUNK))
        return {}

    async def _write_one(self) -> None:
        self._count += 1
        identifier = f"{self.member.settings.node_id}-{os.getpid()}-{self._count}"
        stored = objects.JoinToken(meta=objects.Meta(id=identifier), secret_sha256=self._value)
        await self.member.propose(TransactionBuilder().put(stored).build(f"r-{identifier}", "bench", 1))

    async def _repeat(self, one: Callable[[], Any], clients: int, seconds: float) -> dict[str, Any]:
        measurement = Measurement(seconds)

        async def client() -> None:
            while measurement.goes_on():
                began = time.perf_counter()
                await one()
                measurement.took(time.perf_counter() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)
        return measurement.result()


async def _lines() -> AsyncIterator[str]:
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for chunk in stream:
            buffer += chunk
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                yield line.decode()


async def main() -> None:
    process = Process(json.loads(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(process.member.run)
        print(json.dumps({"started": time.monotonic()}), flush=True)
        async for line in _lines():
            command = json.loads(line)
            answer = {"refused": "no answer"}
            try:
                answer = await getattr(process, command.pop("do"))(**command)
            except* NotServed as refusals:
                answer = {"refused": repr(refusals.exceptions)}
            print(json.dumps(answer), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_SECONDS)
    trio.run(main)
