"""`net encryption status`, `set` and `rotate`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_INTERRUPTED, EXIT_OK, EXIT_TIMED_OUT, CommandFailed
from cli.moments import option_duration_ms
from proto import control_pb2, objects_pb2

ENCRYPTIONS = {
    "none": objects_pb2.ENCRYPTION_NONE,
    "wireguard": objects_pb2.ENCRYPTION_WIREGUARD,
}
POLL_SECONDS = 0.25


def status(options: argparse.Namespace) -> int:
    reply = _get(connect(options), "show the encryption")
    _show(options, reply)
    return EXIT_OK


def change(options: argparse.Namespace) -> int:
    request = control_pb2.UpdateEncryptionRequest(encryption=ENCRYPTIONS[options.encryption])
    if options.key_age:
        request.key_age_ms_max = option_duration_ms("--key-age", options.key_age)
    return _update(options, "change the encryption", request, lambda reply: reply.settled)


def rotate(options: argparse.Namespace) -> int:
    cluster = connect(options)
    before = _get(cluster, "replace the keys").state.sending

    def done(reply: control_pb2.EncryptionReply) -> bool:
        return reply.settled and reply.state.sending != before

    return _update(options, "replace the keys", control_pb2.UpdateEncryptionRequest(rotate=True), done)


def _update(
    options: argparse.Namespace,
    asked: str,
    request: control_pb2.UpdateEncryptionRequest,
    done: Callable[[control_pb2.EncryptionReply], bool],
) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    cluster = connect(options)
    reply = cluster.call(asked, lambda control: control.UpdateEncryption(request, timeout=CALL_SECONDS_MAX))
    if not options.detach:
        try:
            reply = _wait(cluster, asked, reply, done, timeout_ms)
        except KeyboardInterrupt:
            print("\nDetached. It goes on; see: fairway net encryption status", file=sys.stderr)
            return EXIT_INTERRUPTED
    _show(options, reply)
    return EXIT_OK


def _wait(
    cluster: Cluster,
    asked: str,
    reply: control_pb2.EncryptionReply,
    done: Callable[[control_pb2.EncryptionReply], bool],
    timeout_ms: int,
) -> control_pb2.EncryptionReply:
    """Says every new step on standard error."""
    deadline = time.monotonic() + timeout_ms / 1000
    said = ""
    while not done(reply):
        if reply.summary != said:
            said = reply.summary
            print(_sentence(said), file=sys.stderr, flush=True)
        if time.monotonic() > deadline:
            waited = words.duration(timeout_ms)
            raise CommandFailed(asked, f"not done after {waited}; it goes on: {reply.summary}", EXIT_TIMED_OUT)
        time.sleep(POLL_SECONDS)
        reply = _get(cluster, asked)
    return reply


def _get(cluster: Cluster, asked: str) -> control_pb2.EncryptionReply:
    request = control_pb2.GetEncryptionRequest()
    return cluster.call(
        asked, lambda control: control.GetEncryption(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )


def _show(options: argparse.Namespace, reply: control_pb2.EncryptionReply) -> None:
    if options.output == "json":
        output.print_json(output.plain(reply))
        return
    state, now_unix_ms = reply.state, time.time_ns() // 1_000_000
    wanted = words.enum(objects_pb2.Encryption.DESCRIPTOR, reply.wanted)
    rows = [
        ("Wanted", wanted),
        ("Now", _sentence(reply.summary)),
        (
            "Keys",
            f"{words.age(state.sending_since_unix_ms, now_unix_ms)} old, replaced after "
            f"{words.duration(reply.key_age_ms_max)}"
            if state.sending
            else "",
        ),
    ]
    print("\n".join(f"{label + ':':<9}{text}" for label, text in rows if text) + "\n")
    output.print_table(
        ["NODE", "STATE", "KEYS OF EPOCH", "FOLLOWS", "PROBLEM"],
        [
            [
                host.name,
                words.enum(objects_pb2.NodeState.DESCRIPTOR, host.state) or "new",
                ", ".join(map(str, host.epochs)) or "-",
                "yes" if host.current else "no",
                host.problem,
            ]
            for host in reply.hosts
        ],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
