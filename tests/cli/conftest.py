"""A scripted server, a private config folder, and the command run in this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.control_server import ControlServer


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _private_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("FAIRWAY_SOCKET", raising=False)
    monkeypatch.delenv("FAIRWAY_CONTEXT", raising=False)


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A pipeline may have this process, and all that it starts, ignore Ctrl-C."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    scripted = ControlServer(tmp_path / "fairwayd.sock")
    monkeypatch.setenv("FAIRWAY_SOCKET", str(scripted.socket))
    yield scripted
    scripted.stop()


@pytest.fixture
def fairway(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ended]:
    def run(*arguments: str) -> Ended:
        try:
            code = main(list(arguments))
        except SystemExit as ending:  # argparse: usage and --help
            code = int(ending.code or 0)
        captured = capfdbinary.readouterr()
        return Ended(code, captured.out.decode(), captured.err.decode(errors="replace"))

    return run
