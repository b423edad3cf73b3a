"""`backup create`, `backup verify`, `restore` and `recover`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cli import contexts, output, words
from cli.connection import connect, connect_local
from cli.failure import EXIT_FAILED, EXIT_OK, EXIT_USAGE, CommandFailed
from proto import backup_file, control_pb2, passphrase
from proto.backup_pb2 import BackupSeal

CALL_SECONDS_MAX = 3600.0
CHUNK_BYTES = 512 << 10
PASSPHRASE_FILE_BYTES_MAX = 65_536


def create(options: argparse.Namespace) -> int:
    asked = f"back up to {options.file}"
    seal = passphrase.new_seal()
    request = control_pb2.CreateBackupRequest(seal=seal, sealing_key=_key(asked, options.passphrase_file, seal))
    path = Path(options.file)
    if path.exists():
        raise CommandFailed(asked, "the file exists already; give another name, or remove it first")
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            replies = connect(options).stream(
                asked, lambda control: control.CreateBackup(request, timeout=CALL_SECONDS_MAX)
            )
            for reply in replies:
                file.write(reply.data)
            file.flush()
            os.fsync(file.fileno())
        contents = _verified(asked, unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise CommandFailed(asked, f"{error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    _print_contents(options, path, contents, "Wrote and checked")
    return EXIT_OK


def verify(options: argparse.Namespace) -> int:
    asked = f"verify {options.file}"
    path = Path(options.file)
    contents = _verified(asked, path)
    if options.passphrase_file:
        seal = contents.header.seal
        try:
            passphrase.unsealed(seal, _key(asked, options.passphrase_file, seal), contents.header.cluster_id)
        except passphrase.WrongPassphrase as error:
            raise CommandFailed(asked, f"the file is whole, but {error}") from error
    _print_contents(options, path, contents, "Whole and undamaged:")
    return EXIT_OK


def restore(options: argparse.Namespace) -> int:
    asked = f"restore {options.file}"
    contents = _verified(asked, Path(options.file))
    key = _key(asked, options.passphrase_file, contents.header.seal)
    plan = _send(options, asked, key, plan_only=True)
    if options.plan:
        return _show_plan(options, plan.plan, f"Restoring {options.file} would")
    _agree(options, plan.plan, f"Restoring {options.file} will")
    reply = _send(options, asked, key, plan_only=False)
    context = "" if options.no_context else _store_context(reply)
    if options.output == "json":
        output.print_json({**output.plain(reply), "context": context})
        return EXIT_OK
    print(f"The cluster {reply.cluster_name} is restored; this host is its only voter.")
    if context:
        print(f"The context {context} is stored here.")
    _print_next(reply.plan)
    return EXIT_OK


def recover(options: argparse.Namespace) -> int:
    plan = _recover(options, control_pb2.RecoverRequest(plan_only=True)).plan
    if options.plan:
        return _show_plan(options, plan, "Recovering on this host would")
    _agree(options, plan, "Recovering on this host will")
    reply = _recover(options, control_pb2.RecoverRequest(last_index=plan.last_index))
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    print(reply.message)
    _print_next(reply.plan)
    return EXIT_OK


# ---- asking the daemon --------------------------------------------------------------------------


def _recover(options: argparse.Namespace, request: control_pb2.RecoverRequest) -> control_pb2.RecoverReply:
    return connect_local(options).local("recover", lambda local: local.Recover(request, timeout=CALL_SECONDS_MAX))


def _send(options: argparse.Namespace, asked: str, key: bytes, plan_only: bool) -> control_pb2.RestoreReply:
    first = control_pb2.RestoreRequest(
        sealing_key=key,
        node_name=options.name,
        address=options.address,
        labels=_labels(options.label),
        plan_only=plan_only,
    )
    return connect_local(options).local(
        asked, lambda local: local.Restore(_messages(first, options.file), timeout=CALL_SECONDS_MAX)
    )


def _messages(first: control_pb2.RestoreRequest, path: str) -> Iterator[control_pb2.RestoreRequest]:
    yield first
    with Path(path).open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield control_pb2.RestoreRequest(data=data)


def _labels(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandFailed("--label", f"{text!r} is not NAME=VALUE", EXIT_USAGE)
        found[name] = value
    return found


def _store_context(reply: control_pb2.RestoreReply) -> str:
    pem = {
        "certificate": reply.operator_certificate_pem,
        "key": reply.operator_private_key_pem,
        "ca": reply.ca_certificate_pem,
    }
    try:
        known = contexts.read(contexts.folder_of(os.environ))
        return contexts.add(known, reply.cluster_name, [reply.address], pem, reply.cluster_id)
    except CommandFailed as failure:
        # The cluster is there all the same, and root reaches it by this host's socket.
        output.warn(f"the operator's certificate was not stored: {failure}")
        return ""


# ---- files --------------------------------------------------------------------------------------


def _verified(asked: str, path: Path) -> backup_file.BackupContents:
    try:
        with path.open("rb") as file:
            return backup_file.verify(file)
    except OSError as error:
        raise CommandFailed(asked, f"{error.strerror or error}") from error
    except backup_file.BackupBroken as error:
        raise CommandFailed(asked, f"{path} cannot be used: {error}") from error


def _key(asked: str, path: str, seal: BackupSeal) -> bytes:
    """The key that the passphrase makes; the passphrase itself goes nowhere."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(PASSPHRASE_FILE_BYTES_MAX)
        else:
            with Path(path).open("rb") as file:
                content = file.read(PASSPHRASE_FILE_BYTES_MAX)
        return passphrase.sealing_key(passphrase.passphrase_of(content), seal)
    except OSError as error:
        raise CommandFailed(asked, f"the passphrase file {path}: {error.strerror or error}") from error
    except passphrase.WrongPassphrase as error:
        raise CommandFailed(asked, str(error)) from error


# ---- showing ------------------------------------------------------------------------------------


def _print_contents(options: argparse.Namespace, path: Path, contents: backup_file.BackupContents, begin: str) -> None:
    header = contents.header
    size_bytes = path.stat().st_size
    if options.output == "json":
        output.print_json(
            {
                "file": str(path),
                "size_bytes": size_bytes,
                "cluster_id": header.cluster_id,
                "cluster_name": header.cluster_name,
                "revision": header.revision,
                "created_unix_ms": header.created_unix_ms,
                "fairway_version": header.fairway_version,
                "objects": contents.counts,
            }
        )
        return
    print(f"{begin} {path} ({words.size(size_bytes)}).")
    held = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in sorted(contents.counts.items()))
    rows = (
        ("Cluster", f"{header.cluster_name} ({header.cluster_id})"),
        ("Made", f"{words.timestamp(header.created_unix_ms)} by Fairway {header.fairway_version}"),
        ("Revision", str(header.revision)),
        ("Holds", held),
    )
    print("\n".join(f"{label + ':':<10}{text}" for label, text in rows))


def _show_plan(options: argparse.Namespace, plan: control_pb2.DisasterPlan, begin: str) -> int:
    if options.output == "json":
        output.print_json(output.plain(plan))
    else:
        _print_plan(plan, begin, sys.stdout)
        _print_next(plan)
    return EXIT_OK


def _print_plan(plan: control_pb2.DisasterPlan, begin: str, stream: TextIO) -> None:
    for title, sentences in ((f"{begin} keep:", plan.kept), (f"{begin} lose:", plan.lost)):
        print(title, file=stream)
        for sentence in sentences:
            print(f"  - {sentence}", file=stream)


def _print_next(plan: control_pb2.DisasterPlan) -> None:
    if plan.next:
        print("Afterwards:")
        print("\n".join(f"  - {sentence}" for sentence in plan.next))


def _agree(options: argparse.Namespace, plan: control_pb2.DisasterPlan, begin: str) -> None:
    if options.yes:
        return
    _print_plan(plan, begin, sys.stderr)
    if not sys.stdin.isatty():
        raise CommandFailed("", "nobody is here to agree; look at --plan, then add --yes", EXIT_USAGE)
    print('Type "yes" to go on: ', end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise CommandFailed("", "nothing was changed", EXIT_FAILED)
