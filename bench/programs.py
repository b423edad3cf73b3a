"""Runs a program of one side to its end, and says in words why where it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.layout import LabError

ROOT = Path(__file__).parent.parent
PROGRAM_SECONDS_MAX = 120.0
_WORDS_MAX = 500  # characters of a failed program's own


def output_of(argv: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> str:
    """What it prints, run in the source tree; `name`: as an error calls it. Raises LabError."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=PROGRAM_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name} took longer than {PROGRAM_SECONDS_MAX:.0f} s") from error
    if done.returncode != 0:
        raise LabError(f"{name} failed: {(done.stderr or done.stdout).strip()[-_WORDS_MAX:]}")
    return done.stdout
