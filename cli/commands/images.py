"""`image load`, `ls` and `rm`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2

CHUNK_BYTES = 512 << 10
LOAD_SECONDS_MAX = 3600.0


def load(options: argparse.Namespace) -> int:
    with _opened(options.file) as file:
        reading = _Chunks(file, options.file, options.name)
        try:
            reply = connect(options).call(
                f"load the image {options.file}",
                lambda control: control.LoadImage(iter(reading), timeout=LOAD_SECONDS_MAX),
            )
        except CommandFailed:
            if reading.failure is not None:
                raise reading.failure from None
            raise
    for warning in reply.warnings:
        output.warn(warning)
    if options.output == "json":
        output.print_items(reply.images)
    else:
        for image in reply.images:
            print(f"Loaded {image.meta.name} ({words.size(image.size_bytes)}, {image.manifest_digest})")
    return EXIT_OK


class _Chunks:
    """The archive as messages. gRPC pulls them in a thread of its own and swallows what that raises, so a
    failure to read is kept in `failure`."""

    def __init__(self, file: BinaryIO, path: str, name: str) -> None:
        self._file = file
        self._path = path
        self._name = name
        self.failure: CommandFailed | None = None

    def __iter__(self) -> Iterator[control_pb2.LoadImageRequest]:
        first = True
        while True:
            try:
                data = self._file.read(CHUNK_BYTES)
            except OSError as error:
                self.failure = CommandFailed(f"read {self._path}", error.strerror or str(error))
                raise
            if not data and not first:
                return
            yield control_pb2.LoadImageRequest(data=data, name=self._name if first else "")
            first = False


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdin.isatty():
            raise CommandFailed("load the image", "pipe an archive into standard input", EXIT_USAGE)
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below; only opening may fail here
    except OSError as error:
        raise CommandFailed(f"read {path}", error.strerror or str(error)) from error
    with file:
        yield file


def ls(options: argparse.Namespace) -> int:
    reply = connect(options).call(
        "list images",
        lambda control: control.ListImages(control_pb2.ListImagesRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    images = sorted(reply.images, key=lambda image: image.meta.name)
    if options.quiet:
        print("".join(f"{image.meta.name}\n" for image in images), end="")
    elif options.output == "json":
        output.print_items(images)
    else:
        headings = ["IMAGE", "DIGEST", "SIZE", "HOSTS"]
        if options.output == "wide":
            headings += ["PLATFORM", "ID"]
        rows = []
        for image in images:
            digest = image.manifest_digest
            row = [
                image.meta.name,
                digest if options.output == "wide" else digest.removeprefix("sha256:")[:12],
                words.size(image.size_bytes),
                f"{len(image.node_ids)}/{reply.node_count}",
            ]
            if options.output == "wide":
                row += [f"{image.operating_system}/{image.architecture}", image.meta.id]
            rows.append(row)
        output.print_table(headings, rows)
    return EXIT_OK


def rm(options: argparse.Namespace) -> int:
    request = control_pb2.RemoveImageRequest(image=options.image, force=options.force)
    reply = connect(options).call(
        f"remove the image {options.image}",
        lambda control: control.RemoveImage(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        print("".join(f"Removed {name}\n" for name in reply.removed), end="")
    return EXIT_OK
