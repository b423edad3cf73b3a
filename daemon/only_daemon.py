"""One daemon a host: two would take each other's socket, containers and network."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from daemon.errors import Kind, Refused

LOCK_NAME = "fairwayd.lock"


def only_daemon(run_folder: Path) -> TextIO:
    """A lock that the kernel gives back when this process ends, however it ends; keep the file open.

    Raises Refused (NOT_POSSIBLE) where another daemon with this run folder lives, or the folder cannot be used.
    """
    path = run_folder / LOCK_NAME
    try:
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise Refused(f"cannot use {path}: {error.strerror}; see [host] run_folder", Kind.NOT_POSSIBLE) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        process = file.read(20).strip()
        file.close()
        raise Refused(
            f"another fairwayd{f' (process {process})' if process else ''} runs on this host; stop it first, or give "
            "this one a run_folder, a state_folder and ports of its own",
            Kind.NOT_POSSIBLE,
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
