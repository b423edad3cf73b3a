"""`./run torture [--minutes N] [--hosts 3,5] [--seed S] [--only FAULT,...]`: real hosts under faults, judged.

Exit status 0: no acknowledged write was lost, every history can be put in order, and the cluster came back by
itself when the faults ended. 1: one of these is not so; the history is printed.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

import grpc

from lab.cluster import Lab
from lab.layout import LabError
from proto import control_pb2_grpc as control_grpc
from raft.simulation.linearizable import Operation, TooComplex, explain
from tests.torture.clients import Clients, read_register
from tests.torture.clocks import own_clock_build
from tests.torture.disks import small_disks
from tests.torture.faults import FAULTS, Faults

CLIENTS = 6
RECOVERY_SECONDS_MAX = 90.0
POLL_SECONDS = 0.2
SHOWN_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults, shared by the labs; default 5")
    parser.add_argument("--hosts", default="3,5", help="sizes of the labs, one after the other; default 3,5")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="chooses faults and operations")
    parser.add_argument("--only", metavar="FAULT,...", default="", help=f"of {', '.join(FAULTS)}; default all")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    if unknown := set(only) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    sizes = [int(size) for size in arguments.hosts.split(",")]
    print(f"seed {arguments.seed}", flush=True)
    try:
        good = [_torture(size, arguments.minutes * 60 / len(sizes), arguments.seed, only) for size in sizes]
    except LabError as error:
        print(f"torture: {error}", file=sys.stderr)
        return 2
    return 0 if all(good) else 1


def _torture(hosts: int, seconds: float, seed: int, only: list[str]) -> bool:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    choose = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="fairway-torture-", dir="/var/tmp") as folder,
        Lab.make(f"torture-{secrets.token_hex(3)}", hosts, build=own_clock_build(Path(folder))) as lab,
        small_disks(lab, Path(folder)) as disks,
    ):
        sockets = [lab.socket(host) for host in lab.hosts()]
        say(f"{hosts} hosts, each with a disk and a clock of its own")
        back = _recovered(sockets)
        clients = Clients(sockets, seed, CLIENTS)
        clients.start()
        faults = Faults(lab, disks, choose, say, only)
        try:
            faults.run(time.monotonic() + seconds)
        finally:
            healed = time.monotonic()
            back = _recovered(sockets) and back
            say(f"every host serves again {time.monotonic() - healed:.1f} s after the last fault" if back else "STUCK")
            clients.stop()
    history = clients.history
    say(
        f"{history.acknowledged_writes} writes acknowledged, {history.answered_reads} reads answered, "
        f"{history.open_outcomes} outcomes open, {history.refused} refused; faults: {faults.counts}"
    )
    return judged(history.registers()) and back


def _recovered(sockets: list[Path]) -> bool:
    """Whether every host answers with the newest state within RECOVERY_SECONDS_MAX."""
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    for socket in sockets:
        while True:
            with grpc.insecure_channel(f"unix:{socket}") as channel:
                answer = read_register(control_grpc.ControlStub(channel), "none")
            if not isinstance(answer, str):
                break
            if time.monotonic() > deadline:
                print(f"{socket} does not serve: {answer}", file=sys.stderr, flush=True)
                return False
            time.sleep(POLL_SECONDS)
    return True


def judged(registers: dict[str, list[Operation]]) -> bool:
    """Says which registers' histories could not have happened one operation after the other."""
    bad = unknown = 0
    for register, operations in sorted(registers.items()):
        try:
            if explain(operations) is not None:
                continue
        except TooComplex as error:
            unknown += 1
            print(f"{register}: not judged: {error}", flush=True)
            continue
        bad += 1
        print(f"{register}: NOT LINEARIZABLE:", flush=True)
        written = {one.value for one in operations if one.kind == "write"} | {None}
        for one in operations:
            if one.kind == "read" and one.value not in written:
                print(f"    {one.value} was read at {one.returned:.4f}, and no write of it is known", flush=True)
        for one in sorted(operations, key=lambda operation: operation.invoked)[-SHOWN_MAX:]:
            print(f"    {one.invoked:.4f} to {one.returned:.4f} {one.kind} {one.value}", flush=True)
    print(
        f"{len(registers)} histories: {len(registers) - bad - unknown} linearizable, {bad} not, {unknown} not judged",
        flush=True,
    )
    return not bad and not unknown


if __name__ == "__main__":
    sys.exit(main())
