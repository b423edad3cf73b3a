"""`rebalance`: what would be moved, moving it, and whether that happens by itself."""

from __future__ import annotations

import argparse
import sys
import time

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_INTERRUPTED, EXIT_OK, EXIT_TIMED_OUT, EXIT_USAGE, CommandFailed
from cli.moments import option_duration_ms
from proto import control_pb2

POLL_SECONDS = 0.5
_MOVES_A_MINUTE_MAX = 600
_MOVES_A_MINUTE = 10  # where nothing else is set
_AFTER_MS = 60_000


def rebalance(options: argparse.Namespace) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    cluster = connect(options)
    if options.automatic or options.moves_per_minute or options.after:
        return _set(options, cluster)
    if options.stop:
        return _show(options, _call(cluster, "stop rebalancing", control_pb2.RebalanceRequest(stop=True)))
    if options.status:
        return _show(options, _status(cluster))
    target = options.service
    request = control_pb2.RebalanceRequest(target=target, plan_only=options.dry_run)
    reply = _call(cluster, f"rebalance {target}".strip(), request)
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        _print_moves(reply, dry_run=options.dry_run)
    if options.dry_run or options.detach or not (reply.moves or reply.more):
        return EXIT_OK
    return _follow(cluster, timeout_ms, len(reply.moves), quiet=options.output == "json")


def _follow(cluster: Cluster, timeout_ms: int, planned: int, *, quiet: bool) -> int:
    started, said = time.monotonic(), 0
    try:
        while True:
            state = _status(cluster).state
            if state.moves > said and not quiet:
                said = state.moves
                print(f"{said} of {max(planned, said)} begun", flush=True)
            if not state.asked:
                break
            if time.monotonic() - started > timeout_ms / 1000:
                message = "it is not done, and goes on; 'fairway rebalance --stop' ends it"
                raise CommandFailed("rebalance", f"after {words.duration(timeout_ms)} {message}", EXIT_TIMED_OUT)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print("\nDetached. It goes on; 'fairway rebalance --stop' ends it.", file=sys.stderr)
        return EXIT_INTERRUPTED
    if not quiet:
        print(f"Rebalanced in {time.monotonic() - started:.1f}s.")
    return EXIT_OK


def _set(options: argparse.Namespace, cluster: Cluster) -> int:
    if options.service or options.dry_run:
        raise CommandFailed("rebalance", "settings are the cluster's: give no service and no --dry-run", EXIT_USAGE)
    settings = _status(cluster).settings
    if options.automatic:
        settings.automatic = options.automatic == "on"
    if options.moves_per_minute:
        if not options.moves_per_minute.isdecimal() or not 1 <= int(options.moves_per_minute) <= _MOVES_A_MINUTE_MAX:
            message = f"{options.moves_per_minute!r} is not a number from 1 to {_MOVES_A_MINUTE_MAX}"
            raise CommandFailed("--moves-per-minute", message, EXIT_USAGE)
        settings.moves_a_minute_max = int(options.moves_per_minute)
    if options.after:
        settings.after_ms = option_duration_ms("--after", options.after)
    reply = _call(cluster, "set rebalancing", control_pb2.RebalanceRequest(settings=settings))
    return _show(options, reply)


def _show(options: argparse.Namespace, reply: control_pb2.RebalanceReply) -> int:
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    settings, state = reply.settings, reply.state
    moves = settings.moves_a_minute_max or _MOVES_A_MINUTE
    when = "only when that is asked for"
    if settings.automatic:
        when = f"without being asked for, when nothing has changed for {words.duration(settings.after_ms or _AFTER_MS)}"
    print(f"Tasks are moved {when}; at most {words.plural(moves, 'move')} a minute.")
    if state.asked:
        print(f"Asked for now: {state.target or 'everything'}; {words.plural(state.moves, 'move')} begun so far.")
    return EXIT_OK


def _print_moves(reply: control_pb2.RebalanceReply, *, dry_run: bool) -> None:
    if not reply.moves and not reply.more:
        print("No move would make the balance better.")
    else:
        rows = [(move.task, move.from_node, move.to_node, move.why) for move in reply.moves]
        output.print_table(("TASK", "FROM", "TO", "WHY"), rows)
    if reply.more:
        print("There may be more: the cluster is too large to say at once.")
    if dry_run and reply.left_alone:
        print("\nLeft alone:")
        print("\n".join(f"  {each}" for each in reply.left_alone))


def _status(cluster: Cluster) -> control_pb2.RebalanceReply:
    return _call(cluster, "look at rebalancing", control_pb2.RebalanceRequest(status_only=True))


def _call(cluster: Cluster, asked: str, request: control_pb2.RebalanceRequest) -> control_pb2.RebalanceReply:
    return cluster.call(
        asked, lambda control: control.Rebalance(request, timeout=CALL_SECONDS_MAX), repeatable=not request.target
    )
