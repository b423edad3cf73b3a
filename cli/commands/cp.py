"""`cp`: files between a task and here, as tar archives that are packed and unpacked while they are on their way."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import output, words
from cli.connection import Cluster, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2, hands_pb2
from proto.copy_rules import CopyRefused, Goal, Present, goal_of, takes_contents
from proto.tar_in import Unpacking
from proto.tar_out import CHUNK_BYTES, Packing

STREAM = "-"


@dataclass(frozen=True)
class Place:
    """`task` is empty for what is here."""

    task: str
    path: str

    @classmethod
    def read(cls, text: str) -> Place:
        """Docker's rule: TASK:PATH, unless it begins as a path here does."""
        task, colon, path = text.partition(":")
        if not colon or text.startswith(("/", ".")):
            return cls("", text)
        if not task or not path:
            raise CommandFailed("cp", f"{text!r} is not TASK:PATH; write ./{text} for a file here", EXIT_USAGE)
        return cls(task, path)


def cp(options: argparse.Namespace) -> int:
    source, destination = Place.read(options.source), Place.read(options.destination)
    if bool(source.task) == bool(destination.task):
        message = "one of SOURCE and DESTINATION must be TASK:PATH, and the other a path here or -"
        raise CommandFailed("cp", message, EXIT_USAGE)
    asked = f"copy {options.source} to {options.destination}"
    cluster = connect(options)
    try:
        if source.task:
            said = _Download(cluster, asked, options).run(source, destination.path)
        else:
            said = _Upload(cluster, asked, options).run(source.path, destination)
    except CopyRefused as error:
        raise CommandFailed(asked, str(error)) from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CommandFailed(asked, f"{error.filename or options.destination}: {error.strerror or error}") from error
    finally:
        cluster.close()
    if said and not options.quiet:
        print(said)
    return EXIT_OK


class _Upload:
    def __init__(self, cluster: Cluster, asked: str, options: argparse.Namespace) -> None:
        self._cluster = cluster
        self._asked = asked
        self._options = options
        self._failure: Exception | None = None

    def run(self, path: str, destination: Place) -> str:
        target = hands_pb2.CopyTarget(target=destination.task, path=destination.path, keep_owner=self._options.archive)
        chunks = self._standard_input() if path == STREAM else self._packed(path, target)
        try:
            reply = self._cluster.call(self._asked, lambda control: control.CopyTo(self._messages(target, chunks)))
        except CommandFailed:
            if self._failure is not None:
                raise self._failure from None
            raise
        for name in reply.skipped:
            output.warn(f"{name} was left out: it is a device")
        return f"Copied {_amount(reply.files, reply.bytes)} to {destination.task}:{destination.path}"

    def _packed(self, path: str, target: hands_pb2.CopyTarget) -> Iterator[bytes]:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if self._options.follow_link else os.O_NOFOLLOW))
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        absolute = Path(path).absolute()
        name = absolute.name if absolute.name != ".." else absolute.resolve().name
        target.source.name, target.source.folder = name or "root", folder
        target.contents = takes_contents(path)
        return Packing().pack(descriptor, target.source.name)

    def _standard_input(self) -> Iterator[bytes]:
        if sys.stdin.isatty():
            raise CommandFailed(self._asked, "standard input is a terminal; - takes a tar archive", EXIT_USAGE)
        while data := os.read(sys.stdin.fileno(), CHUNK_BYTES):
            yield data

    def _messages(self, target: hands_pb2.CopyTarget, chunks: Iterator[bytes]) -> Iterator[hands_pb2.CopyToRequest]:
        """In a thread of gRPC's. Where something fails here the archive ends without its last message, and the task's
        host drops the file that it was at."""
        yield hands_pb2.CopyToRequest(start=target)
        try:
            for data in chunks:
                yield hands_pb2.CopyToRequest(data=data)
        except (OSError, CopyRefused, CommandFailed) as error:
            self._failure = error
            return
        yield hands_pb2.CopyToRequest(end=True)


class _Download:
    def __init__(self, cluster: Cluster, asked: str, options: argparse.Namespace) -> None:
        self._cluster = cluster
        self._asked = asked
        self._options = options

    def run(self, source: Place, path: str) -> str:
        request = control_pb2.CopyFromRequest(
            target=source.task, path=source.path, follow_link=self._options.follow_link
        )
        if path == STREAM and sys.stdout.isatty():
            raise CommandFailed(self._asked, "standard output is a terminal; - gives a tar archive", EXIT_USAGE)
        replies = self._cluster.stream(self._asked, lambda control: control.CopyFrom(request))
        with contextlib.closing(replies):
            first = next(replies, hands_pb2.CopyFromReply())
            if path == STREAM:
                for reply in replies:
                    output.write_all(sys.stdout.fileno(), reply.data)
                return ""
            if Path(path).is_symlink():
                path = os.path.realpath(path)
            goal = goal_of(path, _present(path), first.source.name, first.source.folder, takes_contents(source.path))
            done = self._unpacking(goal)
            done.unpack(_Received(replies), first.source.name, goal.name)
        for name in done.skipped:
            output.warn(f"{name} was left out: it is a device")
        return f"Copied {_amount(done.file_count, done.byte_count)} to {path}"

    def _unpacking(self, goal: Goal) -> Unpacking:
        def open_folder(parts: Sequence[str]) -> int:
            folder = os.open(goal.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in parts:  # a link within is not followed: it could be the container's own
                above = folder
                try:
                    folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                finally:
                    os.close(above)
            return folder

        keeps = self._options.archive and os.geteuid() == 0
        os.close(open_folder([]))
        return Unpacking(
            open_folder, lambda user, group: (user, group) if keeps else None, keep_special_bits=self._options.archive
        )


class _Received:
    """The data of replies, as a file."""

    def __init__(self, replies: Iterator[hands_pb2.CopyFromReply]) -> None:
        self._replies = replies

    def read(self, _count: int, /) -> bytes:
        return next((reply.data for reply in self._replies if reply.data), b"")


def _present(path: str) -> Present:
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return Present.FILE if os.path.lexists(path.rstrip("/")) else Present.NOTHING
    return Present.FOLDER if stat.S_ISDIR(mode) else Present.FILE


def _amount(files: int, size_bytes: int) -> str:
    return f"{words.plural(files, 'file')}, {words.size(size_bytes)}"
