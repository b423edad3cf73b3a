"""The command `./run sim`: many seeds, or one again."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from raft.rules import ALL_RULES, RULES, Rules, all_but
from raft.simulation.many import quiet, results
from raft.simulation.plan import CLASSES, Plan, plan_of
from raft.simulation.run import Result, run
from raft.simulation.shrink import shrink
from raft.simulation.tally import missing, table

PROGRESS_SECONDS = 30.0
SHOWN_MAX = 5


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where a promise was broken."""
    options = _parser().parse_args(arguments)
    quiet()
    rules = all_but(options.guard_off) if options.guard_off else ALL_RULES
    if options.show or options.without or options.only is not None:
        return _one_by_one(options, rules)
    return _many(options, rules)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run sim",
        description="Runs whole clusters under simulated faults. A seed decides everything and can be run again.",
        epilog=f"Guard rules: {', '.join(RULES)}. Classes of faults: {', '.join(CLASSES)}.",
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=None, metavar="A..B", help="from A to B, or one; else random ones"
    )
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=None, metavar="N", help="end after so long")
    parser.add_argument(
        "--guard-off", choices=tuple(RULES), metavar="RULE", help="without one guard rule: it must fail"
    )
    parser.add_argument("--show", action="store_true", help="tell what happens, event by event")
    parser.add_argument("--without", type=_classes, default=(), metavar="CLASS,...", help="leave out classes of faults")
    parser.add_argument("--only", type=_positions, default=None, metavar="N,...", help="only these faults of the plan")
    return parser


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        found = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted A..B, such as 1..1000, or one number") from None
    if not found or found[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} contains no seed")
    return found


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if unknown := [name for name in names if name not in CLASSES]:
        raise argparse.ArgumentTypeError(f"no class {', '.join(unknown)}; there are: {', '.join(CLASSES)}")
    return names


def _positions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted positions of faults, such as 0,4,7") from None


def _chosen(options: argparse.Namespace) -> Iterator[int]:
    if options.seeds is not None:
        yield from options.seeds
        return
    if options.minutes is None:
        raise SystemExit("./run sim: say --seeds A..B, or --minutes N for random seeds")
    dice = random.SystemRandom()
    while True:
        yield dice.randrange(10**9)


def _many(options: argparse.Namespace, rules: Rules) -> int:
    began = told = time.monotonic()
    runs, operations, failed = 0, 0, []
    counts: Counter[str] = Counter()
    found = results(_chosen(options), rules, max(options.jobs, 1))
    for seed, result in found:
        now = time.monotonic()
        if options.minutes is not None and now - began > options.minutes * 60:
            break
        if now - told > PROGRESS_SECONDS:
            told = now
            print(f"{runs} seeds to {seed}, {runs / (now - began):.1f} a second", file=sys.stderr)
        runs += 1
        operations += result.operations
        counts.update(result.counts)
        if result.violation:
            failed.append(seed)
            if len(failed) <= SHOWN_MAX:
                _explain(seed, result, rules, options.guard_off)
            if options.guard_off:
                break
    found.close()
    took = time.monotonic() - began
    print(table(counts))
    if never := missing(counts):
        print(f"never happened in {runs} seeds: {', '.join(never)}")
    verdict = f"{len(failed)} broke a promise: {failed[:50]}" if failed else "no promise was broken"
    print(f"{runs} seeds in {took:.0f} s, {operations} operations of clients: {verdict}")
    return 1 if failed else 0


def _one_by_one(options: argparse.Namespace, rules: Rules) -> int:
    failed = False
    for seed in _chosen(options):
        plan = plan_of(seed, options.without, options.only)
        print(_described(plan))
        result = run(plan, rules, options.show)
        print(f"seed {seed}: {result.violation or 'no promise was broken'}")
        failed = failed or bool(result.violation)
    return 1 if failed else 0


def _explain(seed: int, result: Result, rules: Rules, guard_off: str | None) -> None:
    print(f"seed {seed}: {result.violation}")
    shrunk = shrink(seed, lambda plan: run(plan, rules).violation)
    again = f"./run sim --seeds {seed}" + (f" --guard-off {guard_off}" if guard_off else "")
    print(f"  again:  {again} --show")
    if shrunk.without:
        again += f" --without {','.join(shrunk.without)}"
    print(f"  fewer:  {again} --only {','.join(map(str, shrunk.only)) or ','} --show")
    print(f"  then:   {shrunk.violation}")
    print("  " + _described(shrunk.plan(seed)).replace("\n", "\n  "))


def _described(plan: Plan) -> str:
    always = sorted(plan.classes - {fault.kind for fault in plan.faults})
    lines = [f"plan of seed {plan.seed}: members {plan.names}, the first {plan.voters} vote; {', '.join(always)}"]
    return "\n".join(lines + [f"  {fault}" for fault in plan.faults])


if __name__ == "__main__":
    sys.exit(main())
