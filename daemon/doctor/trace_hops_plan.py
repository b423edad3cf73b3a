"""The hops at the ends of a packet's way, each judged from what a host saw: ok, or why not and what to do. Pure."""

from __future__ import annotations

from collections.abc import Collection

from daemon.doctor.host_findings_plan import several
from daemon.doctor.isolation_plan import Verdict
from daemon.doctor.trace_ends_plan import NAME, OUTSIDE, SERVICE, Source, Target
from daemon.doctor.trace_walk import REPAIRED, Walk, filters_in_words, milliseconds
from proto import objects_pb2 as objects
from proto.doctor_pb2 import PathObservation, TaskEnd

_ANY_ADDRESS = ("0.0.0.0", "[::]")  # noqa: S104 - what a process may listen on


def source(walk: Walk, where: str, end: Source, here: PathObservation) -> None:
    """The end that the packet leaves from."""
    if end.task is None:
        walk.ok("source", where, f"the host itself, with {end.address}")
    else:
        _end(walk, "source", where, end.task, here.task)


def interface(walk: Walk, where: str, task: objects.Task, there: PathObservation) -> None:
    """The interface of the task at the other end."""
    _end(walk, "interface", where, task, there.task)


def _end(walk: Walk, hop: str, where: str, task: objects.Task, end: TaskEnd) -> None:
    name = task.meta.name
    problem = ""
    if not end.known:
        problem = f"the host does not know {name} (yet, or any more)"
    elif not end.namespace_there:
        problem = f"the network namespace of {name} is gone"
    elif not end.interface_there:
        problem = f"the interface {end.interface} of {name} is missing"
    elif not end.interface_up:
        problem = f"the interface {end.interface} of {name} is down"
    elif not end.inside_up:
        problem = f"eth0 within {name} is down"
    elif end.address not in end.addresses_inside:
        problem = f"eth0 within {name} lacks its address {end.address}"
    elif not end.default_route_inside:
        problem = f"{name} has no default route"
    elif not end.route_to_task:
        problem = f"the host's route to {end.address} does not lead to {end.interface}: something else has it"
    elif not end.neighbour_right:
        problem = f"the host's neighbour entry of {end.address} is missing or wrong"
    elif end.error:
        problem = end.error
    if problem:
        walk.fail(
            hop, where, problem, f"{REPAIRED} (`ip link`, `ip addr`, `ip route get {end.address or task.address}`)"
        )
    else:
        walk.ok(hop, where, f"{name} has {end.address} on {end.interface}")


def name(walk: Walk, where: str, target: Target, here: PathObservation, policy: Verdict) -> None:
    """What the name server of the source's host answers, beside what the state says."""
    answer, asked = here.name, target.name
    found = ", ".join(answer.addresses)
    if not answer.code:
        walk.fail(
            "name",
            where,
            f"the name server at {answer.server or 'the gateway'} did not answer the question for {asked}",
            "`fairway doctor` says whether it runs; look for packet filters and other programs at UDP port 53",
        )
    elif answer.code in ("SERVFAIL", "REFUSED") and target.kind == NAME:
        walk.fail(
            "name",
            where,
            f"{asked} is no name of the cluster, and the upstream name servers did not answer ({answer.code})",
            "mend /etc/resolv.conf of the host, or dns_upstreams in fairwayd.toml; `fairway doctor` asks each",
        )
    elif not answer.addresses:
        _no_address(walk, where, target, answer.code, policy)
    elif target.kind not in (NAME, OUTSIDE) and not set(answer.addresses) & set(target.addresses):
        walk.fail(
            "name",
            where,
            f"{asked} is answered with {found}, the state says {', '.join(target.addresses) or 'no address'}",
            "an old answer, or another name server: wait some seconds and try again",
        )
    else:
        walk.ok("name", where, f"{asked} is {found}")


def _no_address(walk: Walk, where: str, target: Target, code: str, policy: Verdict) -> None:
    if target.kind != NAME and not policy.allowed:
        walk.fail("name", where, f"{target.name} is not known there ({code}): {policy.words}", policy.advice)
    elif target.kind == SERVICE and not target.backends:
        walk.fail("name", where, f"{target.name} has no address: {_unready(target)}", _unready_advice(target))
    elif target.kind == NAME:
        meant = f"; did you mean {' or '.join(target.similar)}?" if target.similar else ""
        walk.fail(
            "name",
            where,
            f"there is no name {target.name} ({code}){meant}",
            "`fairway ls` and `fairway show` list services; names from outside must exist in DNS",
        )
    else:
        walk.fail(
            "name",
            where,
            f"{target.name} is not known there ({code})",
            "wait some seconds and try again; `fairway doctor`",
        )


def balancer(walk: Walk, where: str, target: Target, here: PathObservation) -> None:
    """From a service's address to the tasks behind it."""
    if not target.backends:
        walk.fail("balancer", where, f"no task of {target.label} is ready: {_unready(target)}", _unready_advice(target))
        return
    places = several([f"{task.meta.name} at {task.address}" for task in target.backends])
    if here.vip_differences and target.service is not None and target.service.vip:
        walk.fail("balancer", where, several(here.vip_differences), f"{REPAIRED}: `nft list table inet fairway_fw`")
    elif target.service is not None and not target.service.vip:
        walk.ok("balancer", where, f"{target.label} has no address of its own; its tasks: {places}")
    else:
        walk.ok("balancer", where, f"{target.addresses[0]} leads to {places}")
    if target.unready:
        walk.note("balancer", where, f"not ready and left out: {_unready(target)}", _unready_advice(target))


def _unready(target: Target) -> str:
    if not target.unready:
        return "it has no tasks"
    words = []
    for task in target.unready:
        state = objects.TaskState.Name(task.status.state)[11:].lower()
        if task.status.health == objects.HEALTH_UNHEALTHY:
            state = "its health check fails"
        elif task.status.health == objects.HEALTH_NOT_READY:
            state = "its ready probe fails"
        elif task.status.health == objects.HEALTH_STARTING:
            state = "its health check has not passed yet"
        elif task.status.state == objects.TASK_STATE_RUNNING:
            state = "runs, and does not listen on every port that it declares"
        words.append(f"{task.meta.name} {state}{f' ({task.status.message})' if task.status.message else ''}")
    return several(words)


def _unready_advice(target: Target) -> str:
    return f"`fairway ps {target.label}` and `fairway logs {target.label}` say why"


def policy(walk: Walk, where: str, verdict: Verdict) -> None:
    """Whether the packets may pass at all."""
    if verdict.allowed:
        walk.ok("policy", where, verdict.words)
    else:
        walk.fail("policy", where, verdict.words, verdict.advice)


def process(walk: Walk, where: str, target: Target, task: objects.Task, there: PathObservation) -> None:
    """Whether something in the task listens where the packet goes."""
    if not target.port:
        walk.skip("process", where, "no port is known: write TARGET:PORT")
        return
    if there.task.error or not there.task.namespace_there:
        walk.skip("process", where, "the task's namespace could not be looked at")
        return
    at_port = [each for each in there.task.listeners if each.rpartition(":")[2] == str(target.port)]
    addresses = {each.rpartition(":")[0] for each in at_port}
    if addresses & {*_ANY_ADDRESS, task.address}:
        walk.ok("process", where, f"{task.meta.name} listens on {', '.join(at_port)}")
    elif at_port:
        walk.fail(
            "process",
            where,
            f"{task.meta.name} listens on {', '.join(at_port)} only, which nobody outside of it reaches",
            "let the program listen on 0.0.0.0 (all addresses) instead of its loopback",
        )
    else:
        others = several(sorted({each.rpartition(":")[2] for each in there.task.listeners}, key=int))
        walk.fail(
            "process",
            where,
            f"nothing in {task.meta.name} listens on {target.protocol} port {target.port}; "
            + (f"it listens on {others}" if others else "it listens on no port at all"),
            "correct the port (in the Compose file, or of the client), or let the program listen there",
        )


def connection(walk: Walk, where: str, target: Target, here: PathObservation, filters_there: Collection[str]) -> None:
    """What a real connection attempt says, which sees everything that was not looked at."""
    for result in here.connects:
        place = f"[{result.address}]:{result.port}" if ":" in result.address else f"{result.address}:{result.port}"
        if result.connected:
            accepts = f"accepts in {milliseconds(result.seconds)}"
            walk.ok("connection", where, f"{place} {'does not refuse' if target.protocol == 'udp' else accepts}")
            continue
        filters = [*here.other_filters, *filters_there]
        walk.fail(
            "connection",
            where,
            f"{place}: {result.error}{filters_in_words(filters)}",
            "every part of Fairway on the way that is listed as ok is in place: look at what is named here, "
            "and at the program itself",
        )
    if not here.connects:
        walk.skip("connection", where, "nothing to connect to: write TARGET:PORT")
