"""`cp` beside a server whose task is a folder here."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto import hands_pb2
from proto.tar_in import Unpacking
from proto.tar_out import Packing
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer

Fairway = Callable[..., Ended]
WAIT_SECONDS_MAX = 60.0


class Box:
    """What the cluster does with a copy, simpler: every goal is a folder, or is taken for a file's new name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.targets: list[hands_pb2.CopyTarget] = []
        self.ended: list[bool] = []

    def copy_from(self, request: Any, context: Any) -> Iterator[hands_pb2.CopyFromReply]:
        path = self.root / request.path.strip("/").removesuffix("/.")
        if not path.exists():
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.path}: there is no such file or folder")
        yield hands_pb2.CopyFromReply(source=hands_pb2.CopySource(name=path.name, folder=path.is_dir()))
        for data in Packing().pack(os.open(path, os.O_PATH), path.name):
            yield hands_pb2.CopyFromReply(data=data)

    def copy_to(self, requests: Iterator[hands_pb2.CopyToRequest], context: Any) -> hands_pb2.CopyToReply:
        target = next(requests).start
        self.targets.append(target)
        data = b""
        for request in requests:
            data += request.data
            if request.end:
                self.ended.append(True)
                break
        else:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the copy broke off before its end")

        def open_folder(parts: Sequence[str]) -> int:
            return os.open(self.root.joinpath(*parts), os.O_RDONLY | os.O_DIRECTORY)

        done = Unpacking(open_folder, lambda user, group: None)
        named = target.HasField("source")
        name = "" if target.contents else target.source.name
        done.unpack(io.BytesIO(data), target.source.name if named else None, name)
        return hands_pb2.CopyToReply(files=done.file_count, bytes=done.byte_count, skipped=["dev/null"])


@pytest.fixture
def box(server: ControlServer, tmp_path: Path) -> Box:
    made = Box(tmp_path / "box")
    made.root.mkdir()
    server.on("CopyFrom", made.copy_from)
    server.on("CopyTo", made.copy_to)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_files_and_folders_come_here_by_docker_s_rules(box: Box, here: Path, fairway: Fairway) -> None:
    (box.root / "site" / "css").mkdir(parents=True)
    (box.root / "site" / "index").write_text("hello")
    assert fairway("cp", "shop/web.1:/site/index", ".").out == "Copied 1 file, 5B to .\n"
    assert (here / "index").read_text() == "hello"
    assert fairway("cp", "-q", "web.1:/site/index", "other").out == ""
    assert (here / "other").read_text() == "hello"
    assert fairway("cp", "web.1:/site", "new").code == 0
    assert (here / "new" / "index").exists() and (here / "new" / "css").is_dir()
    assert fairway("cp", "web.1:/site", "new").code == 0
    assert (here / "new" / "site" / "index").exists()
    (here / "flat").mkdir()
    assert fairway("cp", "web.1:/site/.", "flat").code == 0
    assert (here / "flat" / "index").exists()
    (here / "link").symlink_to("other")
    (box.root / "site" / "index").write_text("changed")
    assert fairway("cp", "web.1:/site/index", "link").code == 0
    assert (here / "link").is_symlink() and (here / "other").read_text() == "changed"
    refused = fairway("cp", "web.1:/site", "other")
    assert (refused.code, "a folder cannot be copied over it" in refused.err) == (1, True)
    assert "no such file or folder" in fairway("cp", "web.1:/nope", ".").err
    assert fairway("cp", "web.1:/site/index", "none/new").code == 1


def test_what_is_here_goes_there(box: Box, here: Path, fairway: Fairway) -> None:
    (here / "a").mkdir()
    (here / "a" / "file").write_text("text")
    (here / "to-a").symlink_to("a")
    ended = fairway("cp", "a", "shop/web.1:/srv/")
    assert ended.out == "Copied 2 files, 4B to shop/web.1:/srv/\n"
    assert "dev/null was left out" in ended.err
    assert (box.root / "a" / "file").read_text() == "text"
    fairway("cp", "-a", "a/.", "web.1:/srv")
    fairway("cp", "to-a", "web.1:/srv")
    fairway("cp", "-L", "to-a", "web.1:/srv/new")
    plain, contents, link, followed = box.targets
    assert (plain.target, plain.path, plain.source.name, plain.source.folder) == ("shop/web.1", "/srv/", "a", True)
    assert not plain.keep_owner and contents.keep_owner and contents.contents and (box.root / "file").exists()
    assert not link.source.folder and followed.source.folder and followed.source.name == "to-a"


def test_a_pipe_takes_and_gives_archives(box: Box, here: Path) -> None:
    (box.root / "data").mkdir()
    (box.root / "data" / "big").write_bytes(os.urandom(1_000_000))
    command = [sys.executable, "-m", "cli.main", "cp"]
    given = subprocess.run([*command, "db.1:/data", "-"], capture_output=True, timeout=WAIT_SECONDS_MAX, check=True)
    assert given.stderr == b""
    with tarfile.open(fileobj=io.BytesIO(given.stdout)) as archive:
        assert sorted(archive.getnames()) == ["data", "data/big"]
    (box.root / "data" / "big").unlink()
    taken = subprocess.run(
        [*command, "-", "db.1:/"], input=given.stdout, capture_output=True, timeout=WAIT_SECONDS_MAX, check=True
    )
    assert b"Copied 2 files, 977K" in taken.stdout
    assert (box.root / "data" / "big").stat().st_size == 1_000_000
    assert not box.targets[0].HasField("source")


def test_what_fails_here_is_said_and_what_is_killed_ends(
    box: Box, server: ControlServer, here: Path, fairway: Fairway
) -> None:
    assert "No such file" in fairway("cp", "nope", "web.1:/srv").err
    assert not box.targets
    for arguments in (("a", "b"), ("web.1:/a", "web.2:/b"), ("web.1:", "b")):
        assert fairway("cp", *arguments).code == 2
    came, gone = threading.Event(), threading.Event()

    def stuck(requests: Iterator[hands_pb2.CopyToRequest], context: grpc.ServicerContext) -> Any:
        context.add_callback(gone.set)
        next(requests)
        came.set()
        gone.wait(WAIT_SECONDS_MAX)

    server.on("CopyTo", stuck)
    reader, writer = os.pipe()
    child = subprocess.Popen([sys.executable, "-m", "cli.main", "cp", "-", "web.1:/"], stdin=reader)
    os.close(reader)
    try:
        assert came.wait(WAIT_SECONDS_MAX)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=WAIT_SECONDS_MAX) == 130
        assert gone.wait(WAIT_SECONDS_MAX)
    finally:
        child.kill()
        child.wait()
        os.close(writer)
