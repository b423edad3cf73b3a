"""Many seeds in several processes; their results come back in the order of the seeds."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from raft.rules import Rules
from raft.simulation.plan import plan_of
from raft.simulation.run import Result, run

BATCH_SEEDS = 4  # handed to a process at once
PR_SET_PDEATHSIG = 1  # prctl(2)
GARBAGE_OBJECTS = 50_000  # looked for less often: a run leaves little and its memory is bounded
BATCHES_AHEAD = 4  # for each process: a slow seed holds nobody up

Judged = tuple[int, Result]


def quiet() -> None:
    """Faults are what a simulation is made of: nobody wants to read them as errors."""
    for name in ("raft", "pysyncobj"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def results(seeds: Iterator[int], rules: Rules, jobs: int) -> Generator[Judged, None, None]:
    """Each seed with its result, in order. Close it to stop early; what runs by then is finished and dropped."""
    if jobs == 1:
        yield from ((seed, run(plan_of(seed), rules)) for seed in seeds)
        return
    batches = iter(lambda: list(islice(seeds, BATCH_SEEDS)), [])
    waiting: deque[Future[list[Judged]]] = deque()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare) as pool:
        try:
            for batch in islice(batches, jobs * BATCHES_AHEAD):
                waiting.append(pool.submit(_run_batch, batch, rules))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(_run_batch, batch, rules) for batch in islice(batches, 1))
                yield from done
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    quiet()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # who is killed leaves no process behind
    gc.freeze()  # what is loaded now stays
    gc.set_threshold(GARBAGE_OBJECTS, 20, 100)


def _run_batch(seeds: list[int], rules: Rules) -> list[Judged]:
    return [(seed, run(plan_of(seed), rules)) for seed in seeds]
