"""The scheduler alone, in simulation: 10,000 tasks on 1,000 hosts and 50,000 on 5,000, and how good the result is.

Hosts of three sizes in ten zones; services of 50 tasks with demands of four shapes. A quarter each is bound to hosts
with a label, is spread over racks, keeps its tasks off each other's hosts, or likes to be near another service. What is
timed is a whole pass over an empty cluster, in CPU time of its one thread: making the columns, and a place for every
task. The peers' numbers are those that they published of their own schedulers, on other machines: SwarmKit (1,000
nodes), Nomad (five servers).
"""

from __future__ import annotations

import gc
import random
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.table import Report, Row
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from proto import objects_pb2 as objects

GIB = 1 << 30
SWARMKIT_PER_S = 5_500.0
NOMAD_PER_S = 3_750.0
BAR_PER_S = 10_000.0
RUNS = 3
TASKS_OF_SERVICE = 50
ZONES, RACKS_OF_ZONE = 10, 10
HOST_SIZES = ((8_000, 32 * GIB), (16_000, 64 * GIB), (32_000, 96 * GIB))  # thousandths of a core, bytes
DEMANDS = ((750, 3 * GIB), (1_500, 6 * GIB), (2_500, 3 * GIB), (750, 9 * GIB))
MEDIAN_CPU_MILLIS, MEDIAN_MEMORY_BYTES = 1_125, 4 * GIB + GIB // 2
IMAGE = objects.Image(manifest_digest="sha256:a", architecture="amd64")


@dataclass(frozen=True)
class Outcome:
    """`load`: by host, the reserved part of the scarcer of CPU and memory; `stranded`: the part of what is free that
    lies on hosts where the other of the two has no room for a median task; `zone_gap_max`: between the zones with most
    and fewest tasks of one service that is not bound to a label."""

    seconds: float
    placed: int
    load: list[float]
    stranded: float
    zone_gap_max: int
    reserved: float  # part of all memory


def measure(_sides: Sequence[str]) -> Report:
    """Prints nothing; takes some ten seconds."""
    report = Report("schedule", "Placements in simulation: constraints, spread, affinity")
    for hosts, tasks in ((1_000, 10_000), (5_000, 50_000)):
        outcomes = [run(hosts, tasks) for _ in range(RUNS)]
        rates = [outcome.placed / outcome.seconds for outcome in outcomes]
        last = outcomes[-1]
        size = f"{tasks:,} tasks on {hosts:,} hosts"
        for peer, per_s, bar in (("SwarmKit", SWARMKIT_PER_S, BAR_PER_S), ("Nomad", NOMAD_PER_S, 0.0)):
            rate = statistics.median(rates)
            wanted = f"at least {bar:,.0f}/s" if bar and hosts == 1_000 else ""
            met = rate >= bar if wanted else None
            report.rows.append(
                Row(
                    size,
                    "placements/s",
                    rates,
                    f"{peer}, published",
                    [per_s],
                    "Fairway / it",
                    rate / per_s,
                    wanted,
                    met,
                )
            )
        load = last.load
        report.notes.append(
            f"{size}: {last.placed:,} placed, {last.reserved:.0%} of the memory reserved; load of a host "
            f"{statistics.mean(load):.3f} with a standard deviation of {statistics.pstdev(load):.3f} "
            f"({min(load):.3f}..{max(load):.3f}); {last.stranded:.1%} of what is free is stranded; zones of one "
            f"service differ by {last.zone_gap_max} at most; peak memory of the process, tasks included, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
        )
    return report


def run(host_count: int, task_count: int) -> Outcome:
    """One pass; the same placements each time."""
    chance = random.Random(1)
    nodes = [_node(number, chance) for number in range(host_count)]
    tasks = [_task(number) for number in range(task_count)]
    gc.collect()
    started = time.process_time()
    scheduler = Scheduler(nodes, [])
    where = [scheduler.place(Candidate(task, IMAGE)).node for task in tasks]
    seconds = time.process_time() - started
    placed = [(task, node) for task, node in zip(tasks, where, strict=True) if node is not None]
    cpu = {node.meta.id: node.description.cpu_millis for node in nodes}
    memory = {node.meta.id: node.description.memory_bytes for node in nodes}
    for task, node in placed:
        cpu[node.meta.id] -= task.spec.resources.cpu_reserved_millis
        memory[node.meta.id] -= task.spec.resources.memory_reserved_bytes
    assert min(cpu.values()) >= 0 and min(memory.values()) >= 0
    total_cpu = sum(node.description.cpu_millis for node in nodes)
    total_memory = sum(node.description.memory_bytes for node in nodes)
    load = [
        1
        - min(
            cpu[node.meta.id] / node.description.cpu_millis,
            memory[node.meta.id] / node.description.memory_bytes,
        )
        for node in nodes
    ]
    stranded = [key for key in cpu if cpu[key] < MEDIAN_CPU_MILLIS or memory[key] < MEDIAN_MEMORY_BYTES]
    parts = (sum(cpu[key] for key in stranded) / total_cpu, sum(memory[key] for key in stranded) / total_memory)
    free = (sum(cpu.values()) / total_cpu, sum(memory.values()) / total_memory)
    return Outcome(
        seconds,
        len(placed),
        load,
        sum(parts) / max(sum(free), 1e-9),
        _zone_gap_max(placed),
        1 - sum(memory.values()) / total_memory,
    )


def _zone_gap_max(placed: Sequence[tuple[objects.Task, objects.Node]]) -> int:
    counts: dict[str, dict[str, int]] = {}
    for task, node in placed:
        if int(task.service_id) % 4 in (1, 2):  # spread over racks, or kept off each other: nothing else pulls
            zones = counts.setdefault(task.service_id, dict.fromkeys(map(str, range(ZONES)), 0))
            zones[node.meta.labels["zone"]] += 1
    return max((max(zones.values()) - min(zones.values()) for zones in counts.values()), default=0)


def _node(number: int, chance: random.Random) -> objects.Node:
    cpu_millis, memory_bytes = chance.choice(HOST_SIZES)
    zone = number % ZONES
    labels = {
        "zone": str(zone),
        "rack": f"{zone}-{number // ZONES % RACKS_OF_ZONE}",
        "disk": "ssd" if chance.random() < 0.5 else "hdd",
    }
    return objects.Node(
        meta=objects.Meta(id=f"node{number}", name=f"host-{number:05d}", labels=labels),
        availability=objects.AVAILABILITY_ACTIVE,
        state=objects.NODE_STATE_READY,
        network=objects.NodeNetwork(block="10.112.1.0/24"),
        description=objects.NodeDescription(architecture="amd64", cpu_millis=cpu_millis, memory_bytes=memory_bytes),
    )


def _task(number: int) -> objects.Task:
    service, slot = divmod(number, TASKS_OF_SERVICE)
    cpu_millis, memory_bytes = DEMANDS[service // 4 % len(DEMANDS)]
    spec = objects.ServiceSpec(
        resources=objects.Resources(cpu_reserved_millis=cpu_millis, memory_reserved_bytes=memory_bytes)
    )
    kind = service % 4
    if kind == 0:
        spec.constraints.append("node.labels.disk == ssd")
    elif kind == 1:
        spec.placement.spread_over.extend(["node.labels.zone", "node.labels.rack"])
    elif kind == 2:
        spec.placement.affinities.add(service=f"service{service}", anti=True, required=True)
    else:
        spec.placement.affinities.add(service=f"service{service - 1}", same="node.labels.rack")
    return objects.Task(
        meta=objects.Meta(id=f"task{number}", name=f"service{service}.{slot + 1}"),
        app="bench",
        service_id=str(service),
        service=f"service{service}",
        slot=slot + 1,
        desired=objects.DESIRED_STATE_RUNNING,
        spec=spec,
    )
