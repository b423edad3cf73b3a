"""The Compose files that a command is about, found as Compose finds them, and read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli import output
from cli.compose import project
from cli.compose.problems import ComposeRefused
from cli.failure import EXIT_USAGE, CommandFailed

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDES = tuple(name.replace("compose.y", "compose.override.y") for name in NAMES)


def read_project(options: argparse.Namespace) -> project.Project:
    """What the files of the command's COMPOSE options say together; warnings are printed."""
    choices = project.Choices(options.name, tuple(options.profile), tuple(map(Path, options.env_file)))
    paths = compose_paths([*options.file, *options.files], os.environ, Path())
    if not paths:
        message = f"no file was given, and this folder has none of {', '.join(NAMES)}"
        raise CommandFailed("read a Compose file", message, EXIT_USAGE)
    try:
        read = project.load(paths, os.environ, choices)
    except ComposeRefused as refused:
        raise CommandFailed("", str(refused)) from refused
    except OSError as error:
        raise CommandFailed(f"read {error.filename or paths[0]}", error.strerror or str(error)) from error
    for warning in read.warnings:
        output.warn(warning)
    return read


def compose_paths(given: Sequence[str], environment: Mapping[str, str], folder: Path) -> list[Path]:
    """The files given, else those of COMPOSE_FILE, else the one of a usual name in `folder` and its override."""
    if given:
        return [Path(each) for each in given]
    if named := environment.get("COMPOSE_FILE", ""):
        separator = environment.get("COMPOSE_PATH_SEPARATOR", "") or os.pathsep
        return [Path(each) for each in named.split(separator) if each]
    first = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if first is None:
        return []
    override = next((folder / name for name in OVERRIDES if (folder / name).is_file()), None)
    return [first, *([override] if override is not None else [])]
