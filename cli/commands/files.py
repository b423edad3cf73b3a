"""`secret` and `config`: `create`, `ls`, `inspect`, `rm`, and `secret rotate`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2, objects_pb2

FILE_BYTES_MAX = 500 << 10
_SECRET, _CONFIG = objects_pb2.FILE_KIND_SECRET, objects_pb2.FILE_KIND_CONFIG
_WORDS = {_SECRET: "secret", _CONFIG: "config"}


def create_secret(options: argparse.Namespace) -> int:
    return _create(options, _SECRET)


def create_config(options: argparse.Namespace) -> int:
    return _create(options, _CONFIG)


def rotate_secret(options: argparse.Namespace) -> int:
    asked = f"rotate the secret {options.name}"
    request = control_pb2.CreateFileRequest(
        kind=_SECRET,
        name=options.name,
        content=_content(asked, options.file),
        new_version=True,
        keep_services=options.keep_services,
    )
    reply = connect(options).call(asked, lambda control: control.CreateFile(request, timeout=CALL_SECONDS_MAX))
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    print(f"{options.name} has version {reply.file.version}")
    if reply.services:
        print(f"New tasks with it: {', '.join(reply.services)} (`fairway ps` shows how far they are)")
    return EXIT_OK


def ls_secret(options: argparse.Namespace) -> int:
    return _ls(options, _SECRET)


def ls_config(options: argparse.Namespace) -> int:
    return _ls(options, _CONFIG)


def inspect_secret(options: argparse.Namespace) -> int:
    return _inspect(options, _SECRET)


def inspect_config(options: argparse.Namespace) -> int:
    return _inspect(options, _CONFIG)


def remove_secret(options: argparse.Namespace) -> int:
    return _remove(options, _SECRET)


def remove_config(options: argparse.Namespace) -> int:
    return _remove(options, _CONFIG)


def _create(options: argparse.Namespace, kind: objects_pb2.FileKind.ValueType) -> int:
    asked = f"create the {_WORDS[kind]} {options.name}"
    labels = {}
    for text in options.label:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandFailed(asked, f"--label {text!r} is not NAME=VALUE", EXIT_USAGE)
        labels[name] = value
    content = _content(asked, options.file)
    request = control_pb2.CreateFileRequest(kind=kind, name=options.name, content=content, labels=labels)
    reply = connect(options).call(asked, lambda control: control.CreateFile(request, timeout=CALL_SECONDS_MAX))
    if options.output == "json":
        output.print_json(output.plain(reply.file))
    else:
        print(f"{options.name} created")
    return EXIT_OK


def _content(asked: str, file: str) -> bytes:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandFailed(asked, f"{file}: {error.strerror or error}") from error
    if not content:
        raise CommandFailed(asked, f"{file} is empty", EXIT_USAGE)
    if len(content) > FILE_BYTES_MAX:
        raise CommandFailed(asked, f"{file} is larger than {FILE_BYTES_MAX} bytes", EXIT_USAGE)
    return content


def _ls(options: argparse.Namespace, kind: objects_pb2.FileKind.ValueType) -> int:
    views = _list(options, kind, "")
    if options.quiet:
        print("".join(f"{_full_name(view.file)}\n" for view in views), end="")
    elif options.output == "json":
        output.print_items(views)
    else:
        now = time.time_ns() // 1_000_000
        rows = [
            (
                _full_name(view.file),
                str(view.file.version),
                f"{view.file.size_bytes} B",
                view.file.app or "-",
                ", ".join(view.services) or "-",
                words.age(view.file.meta.created_unix_ms, now),
            )
            for view in views
        ]
        output.print_table(("NAME", "VERSION", "SIZE", "APP", "USED BY", "AGE"), rows)
    return EXIT_OK


def _inspect(options: argparse.Namespace, kind: objects_pb2.FileKind.ValueType) -> int:
    views = _list(options, kind, options.name)
    if options.output == "json":
        output.print_items(views)
        return EXIT_OK
    file = views[0].file
    print(f"{_WORDS[kind].capitalize()}: {_full_name(file)}")
    if file.app:
        print(f"App:    {file.app}, whose file defines it")
    for name, value in sorted(file.meta.labels.items()):
        print(f"Label:  {name}={value}")
    now = time.time_ns() // 1_000_000
    print()
    output.print_table(
        ("VERSION", "SIZE", "USED BY", "AGE"),
        [
            (
                str(view.file.version),
                f"{view.file.size_bytes} B",
                ", ".join(view.services) or "-",
                words.age(view.file.meta.created_unix_ms, now),
            )
            for view in views
        ],
    )
    if kind == _CONFIG:
        print("\n" + file.content.decode(errors="replace"))
    return EXIT_OK


def _list(options: argparse.Namespace, kind: objects_pb2.FileKind.ValueType, name: str) -> list[control_pb2.FileView]:
    request = control_pb2.ListFilesRequest(kind=kind, name=name)
    reply = connect(options).call(
        f"show the {_WORDS[kind]} {name}" if name else f"list {_WORDS[kind]}s",
        lambda control: control.ListFiles(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    return list(reply.files)


def _remove(options: argparse.Namespace, kind: objects_pb2.FileKind.ValueType) -> int:
    request = control_pb2.RemoveFileRequest(kind=kind, name=options.name)
    reply = connect(options).call(
        f"remove the {_WORDS[kind]} {options.name}",
        lambda control: control.RemoveFile(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply.file))
    else:
        print(f"{options.name} removed")
    return EXIT_OK


def _full_name(file: objects_pb2.TaskFile) -> str:
    return file.meta.name if file.meta.tenant == "default" else f"{file.meta.tenant}/{file.meta.name}"
