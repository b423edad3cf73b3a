"""`service history`, `rollback`, `pause`, `resume`, `promote` and `abort`."""

from __future__ import annotations

import argparse
import sys
import time

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_OK, CommandFailed
from cli.live import Live
from cli.moments import option_duration_ms
from cli.rollout_following import Following
from proto import control_pb2, objects_pb2

_Request = control_pb2.SteerRolloutRequest
_Rollout = objects_pb2.Rollout


def history(options: argparse.Namespace) -> int:
    cluster, name = connect(options), options.service
    service = _one(cluster, name)
    if options.output == "json":
        revisions = [output.plain(revision) for revision in service.revisions]
        present = objects_pb2.Revision(
            generation=service.generation,
            spec=service.spec,
            image_digest=service.image_digest,
            started_unix_ms=service.rollout.started_unix_ms or service.meta.created_unix_ms,
            reason=service.rollout.reason,
            failed=service.rollout.state == _Rollout.STATE_FAILED,
            back_to=service.rollout.back_to,
        )
        output.print_json([*revisions, output.plain(present)])
        return EXIT_OK
    output.print_table(
        ("REVISION", "AGE", "STATE", "IMAGE", "CHANGE"), history_rows(service, time.time_ns() // 1_000_000)
    )
    return EXIT_OK


def history_rows(service: objects_pb2.Service, now_unix_ms: int) -> list[tuple[str, str, str, str, str]]:
    """Oldest first; the last is what the service is now."""
    rows = []
    for revision in service.revisions:
        state = "unfinished" if revision.failed else "replaced"
        age = words.age(revision.started_unix_ms, now_unix_ms)
        rows.append((str(revision.generation), age, state, revision.spec.container.image, revision.reason or "first"))
    rollout = service.rollout
    state = rollout_words(service)
    age = words.age(rollout.started_unix_ms or service.meta.created_unix_ms, now_unix_ms)
    change = rollout.reason or ("first" if not rows else "")
    rows.append((str(service.generation), age, state, service.spec.container.image, change))
    return rows


def rollout_words(service: objects_pb2.Service) -> str:
    """What the service's last rollout is at: "present" when it is over."""
    rollout = service.rollout
    if rollout.generation != service.generation or rollout.state in (_Rollout.STATE_UNSPECIFIED, _Rollout.STATE_DONE):
        return "present"
    if rollout.state == _Rollout.STATE_GOING and rollout.back_to:
        return "rolling back"
    return words.enum(_Rollout.State.DESCRIPTOR, rollout.state)


def rollback(options: argparse.Namespace) -> int:
    number = options.to
    if number and not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 63):
        raise CommandFailed(f"roll back {options.service}", f"{number!r} is not the number of a revision")
    request = _Request(service=options.service, action=_Request.ROLL_BACK, to_revision=int(number or 0))
    return _steer(options, request, "Rolled back")


def abort(options: argparse.Namespace) -> int:
    return _steer(options, _Request(service=options.service, action=_Request.ABORT), "Rolled back")


def promote(options: argparse.Namespace) -> int:
    request = _Request(service=options.service, action=_Request.PROMOTE, all_steps=options.all)
    return _steer(options, request, "Promoted")


def resume(options: argparse.Namespace) -> int:
    return _steer(options, _Request(service=options.service, action=_Request.RESUME), "Rolled out")


def pause(options: argparse.Namespace) -> int:
    return _steer(options, _Request(service=options.service, action=_Request.PAUSE), "")


def _steer(options: argparse.Namespace, request: control_pb2.SteerRolloutRequest, done: str) -> int:
    """Asks and, where `done` says how that ends, waits for it."""
    timeout_ms = option_duration_ms("--timeout", options.timeout) if done else 0
    cluster = connect(options)
    action = _Request.Action.Name(request.action).lower().replace("roll_back", "rollback")
    asked = f"{action} {request.service}"
    reply = cluster.call(asked, lambda control: control.SteerRollout(request, timeout=CALL_SECONDS_MAX))
    service = reply.service
    as_json = options.output == "json"
    if as_json:
        output.print_json(output.plain(service))
    else:
        print(reply.message)
    if not done or options.detach:
        return EXIT_OK
    tasks = control_pb2.ListTasksRequest(app=service.app, service=service.meta.name, all=True)
    going_back = request.action in (_Request.ROLL_BACK, _Request.ABORT)
    following = Following(asked, tasks, reply.revision, frozenset() if going_back else {service.meta.name})
    return following.follow(
        cluster, timeout_ms, Live(sys.stderr if as_json else sys.stdout), f"{done} {service.app}/{service.meta.name}"
    )


def _one(cluster: Cluster, name: str) -> objects_pb2.Service:
    request = control_pb2.ListServicesRequest(service=name)
    reply = cluster.call(
        f"look up {name}", lambda control: control.ListServices(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )
    if len(reply.services) != 1:
        names = ", ".join(sorted(f"{view.service.app}/{view.service.meta.name}" for view in reply.services))
        raise CommandFailed(f"look up {name}", f"several services have this name; choose one of {names}")
    return reply.services[0].service
