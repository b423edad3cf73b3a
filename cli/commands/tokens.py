"""`token create`, `ls` and `revoke`."""

from __future__ import annotations

import argparse
import time

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK
from cli.moments import option_duration_ms
from proto import control_pb2, objects_pb2

_ROLES = {"voter": objects_pb2.NODE_ROLE_VOTER, "worker": objects_pb2.NODE_ROLE_WORKER}


def create(options: argparse.Namespace) -> int:
    request = control_pb2.CreateTokenRequest(
        role=_ROLES[options.role],
        valid_ms=option_duration_ms("--valid", options.valid),
        name=options.name,
    )
    reply = connect(options).call(
        "create a token", lambda control: control.CreateToken(request, timeout=CALL_SECONDS_MAX)
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    elif options.quiet:
        print(reply.text)
    else:
        print(f"{reply.text}\n")
        print(f"Good for {words.duration(request.valid_ms)}; it is not shown again. On the new host:\n")
        print(f"  fairway join ADDRESS --token {reply.text}")
    return EXIT_OK


def ls(options: argparse.Namespace) -> int:
    tokens = list(
        connect(options)
        .call(
            "list tokens",
            lambda control: control.ListTokens(control_pb2.ListTokensRequest(), timeout=CALL_SECONDS_MAX),
            repeatable=True,
        )
        .tokens
    )
    if options.quiet:
        print("".join(f"{token.meta.id}\n" for token in tokens), end="")
    elif options.output == "json":
        output.print_items(tokens)
    else:
        now = time.time_ns() // 1_000_000
        rows = [
            (
                token.meta.id,
                token.meta.name or "-",
                words.enum(objects_pb2.NodeRole.DESCRIPTOR, token.role),
                state_words(token, now),
                str(token.used_count),
                words.age(token.meta.created_unix_ms, now),
            )
            for token in tokens
        ]
        output.print_table(("ID", "NAME", "ROLE", "STATE", "USED", "AGE"), rows)
    return EXIT_OK


def state_words(token: objects_pb2.JoinToken, now_unix_ms: int) -> str:
    if token.revoked:
        return "revoked"
    if token.expires_unix_ms <= now_unix_ms:
        return "expired"
    return f"good for {words.duration(token.expires_unix_ms - now_unix_ms)}"


def revoke(options: argparse.Namespace) -> int:
    request = control_pb2.RevokeTokenRequest(token=options.token)
    connect(options).call(
        f"revoke the token {options.token}",
        lambda control: control.RevokeToken(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json({"revoked": options.token})
    else:
        print(f"Revoked {options.token}; no host can join with it.")
    return EXIT_OK
