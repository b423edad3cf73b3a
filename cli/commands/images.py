"""`image pull`, `load`, `push`, `ls`, `inspect`, `tag`, `rm` and `prune`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cli import output, pulling, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from cli.moments import option_duration_ms
from proto import control_pb2, objects_pb2

CHUNK_BYTES = 512 << 10
LOAD_SECONDS_MAX = 3600.0


def pull(options: argparse.Namespace) -> int:
    cluster = connect(options)
    as_json = options.output == "json"
    replies = []
    for image in options.images:
        replies.append(pulling.pull(cluster, image, True, sys.stderr if as_json else sys.stdout))
        if not as_json:
            print(pulling.pulled_words(replies[-1]))
    if as_json:
        output.print_items(replies)
    return EXIT_OK


def load(options: argparse.Namespace) -> int:
    with _opened(options.file) as file:
        chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        return _give(options, f"load the image {options.file}", f"read {options.file}", chunks, options.name)


def push(options: argparse.Namespace) -> int:
    if options.what == "-" or Path(options.what).is_file():
        options.file = options.what
        return load(options)
    from cli.containerd_image import ContainerdImage  # containerd's whole API, which the other commands do not need

    with ContainerdImage(options.what, options.containerd, options.namespace) as image:
        name = options.name or image.name
        return _give(options, f"push {options.what}", f"read {image.name}", image.archive(), name)


def _give(options: argparse.Namespace, asked: str, reading: str, chunks: Iterator[bytes], name: str) -> int:
    """Sends an archive to the cluster."""
    messages = _Messages(chunks, reading, name)
    try:
        reply = connect(options).call(
            asked, lambda control: control.LoadImage(iter(messages), timeout=LOAD_SECONDS_MAX)
        )
    except CommandFailed:
        if messages.failure is not None:
            raise messages.failure from None
        raise
    for warning in reply.warnings:
        output.warn(warning)
    if options.output == "json":
        output.print_items(reply.images)
    else:
        for image in reply.images:
            print(f"Loaded {image.meta.name} ({words.size(image.size_bytes)}, {image.manifest_digest})")
    return EXIT_OK


class _Messages:
    """The archive as messages. gRPC pulls them in a thread of its own and swallows what that raises, so a
    failure to read is kept in `failure`."""

    def __init__(self, chunks: Iterator[bytes], reading: str, name: str) -> None:
        self._chunks = chunks
        self._reading = reading
        self._name = name
        self.failure: CommandFailed | None = None

    def __iter__(self) -> Iterator[control_pb2.LoadImageRequest]:
        name = self._name
        try:
            for data in self._chunks:
                yield control_pb2.LoadImageRequest(data=data, name=name)
                name = ""
        except CommandFailed as failure:
            self.failure = failure
            raise
        except OSError as error:
            self.failure = CommandFailed(self._reading, error.strerror or str(error))
            raise


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


def inspect(options: argparse.Namespace) -> int:
    request = control_pb2.InspectImageRequest(image=options.image)
    reply = connect(options).call(
        f"inspect the image {options.image}",
        lambda control: control.InspectImage(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    manifest, config = _document(reply.manifest), _document(reply.config)
    if options.output == "json":
        plain = output.plain(reply)
        plain.update(manifest=manifest, config=config)
        output.print_json(plain)
        return EXIT_OK
    for heading, text in _facts(reply, config):
        if text:
            print(f"{heading + ':':<13}{text}")
    layers = manifest.get("layers") or []
    if layers:
        print()
        rows = [(layer["digest"], words.size(int(layer["size"])), layer["mediaType"]) for layer in layers]
        output.print_table(("LAYER", "SIZE", "TYPE"), rows)
    return EXIT_OK


def _document(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data) if data else {}
    return found


def _facts(reply: control_pb2.InspectImageReply, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    image, runs = reply.image, config.get("config") or {}
    yield "Image", image.meta.name
    yield "Digest", image.manifest_digest
    yield "Index", image.index_digest
    yield "Platform", f"{image.operating_system}/{image.architecture}"
    yield "Size", words.size(image.size_bytes)
    yield "Came", _came(image)
    yield "Hosts", str(len(image.node_ids))
    if image.unused_since_unix_ms:
        yield "Unused", f"for {words.age(image.unused_since_unix_ms, time.time_ns() // 1_000_000)}"
    yield "Used by", ", ".join(reply.services)
    for heading, name in (("Entrypoint", "Entrypoint"), ("Command", "Cmd")):
        yield heading, json.dumps(runs[name]) if runs.get(name) else ""
    for heading, name in (("User", "User"), ("Folder", "WorkingDir"), ("Stop signal", "StopSignal")):
        yield heading, str(runs.get(name) or "")
    for heading, name in (("Ports", "ExposedPorts"), ("Volumes", "Volumes")):
        yield heading, ", ".join(sorted(runs.get(name) or {}))
    for text in runs.get("Env") or []:
        yield "Environment", str(text)
    for name, value in sorted((runs.get("Labels") or {}).items()):
        yield "Label", f"{name}={value}"


def _came(image: objects_pb2.Image) -> str:
    now = time.time_ns() // 1_000_000
    if image.pulled_unix_ms:
        return f"pulled {words.age(image.pulled_unix_ms, now)} ago"
    return f"loaded {words.age(image.meta.created_unix_ms, now)} ago"


def tag(options: argparse.Namespace) -> int:
    request = control_pb2.TagImageRequest(image=options.image, name=options.name)
    reply = connect(options).call(
        f"tag the image {options.image}", lambda control: control.TagImage(request, timeout=CALL_SECONDS_MAX)
    )
    if options.output == "json":
        output.print_json(output.plain(reply.image))
    else:
        print(f"{reply.image.meta.name} is {reply.image.manifest_digest}")
    return EXIT_OK


def prune(options: argparse.Namespace) -> int:
    unused_ms = option_duration_ms("--older-than", options.older_than) if options.older_than not in ("0", "0s") else 0
    request = control_pb2.PruneImagesRequest(unused_ms=unused_ms, plan_only=options.dry_run)
    reply = connect(options).call(
        "prune images", lambda control: control.PruneImages(request, timeout=CALL_SECONDS_MAX)
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    word = "Would remove" if options.dry_run else "Removed"
    print("".join(f"{word} {name}\n" for name in reply.removed), end="")
    print(f"{words.plural(len(reply.removed), 'image')}, {words.size(reply.size_bytes)} on every host")
    return EXIT_OK
