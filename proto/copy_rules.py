"""Where a copied file or folder goes: the rules of `docker cp`, for both directions. Pure.

https://docs.docker.com/reference/cli/docker/container/cp/ has them in words. One differs: what exists already as a
folder keeps its mode and owner.
"""

from __future__ import annotations

import enum
import posixpath
from dataclasses import dataclass


class Present(enum.Enum):
    """What stands at a destination, links followed."""

    NOTHING = "nothing"
    FILE = "file"
    FOLDER = "folder"


class CopyRefused(Exception):
    """The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Goal:
    """The entries go into `folder`, which exists; the archive's first name is replaced by `name` ("": left out)."""

    folder: str
    name: str


def takes_contents(source: str) -> bool:
    """Of a folder written as "DIR/." only what is in it is meant."""
    return source == "." or source.endswith("/.")


def goal_of(destination: str, present: Present, name: str, folder: bool, contents: bool) -> Goal:
    """`name`, `folder`, `contents`: what is copied; `present`: what stands at `destination`. Raises CopyRefused."""
    if present is Present.FOLDER:
        return Goal(destination, "" if contents and folder else name)
    meant_as_folder = destination.endswith(("/", "/."))
    stripped = destination.rstrip("/").removesuffix("/.") or "/"
    if present is Present.FILE and folder:
        raise CopyRefused(f"{destination} is a file, and a folder cannot be copied over it")
    if present is Present.FILE and meant_as_folder:
        raise CopyRefused(f"{stripped} is no folder; leave the slash out to replace it")
    if present is Present.NOTHING and meant_as_folder and not folder:
        raise CopyRefused(f"there is no folder {stripped}; make it first, or leave the slash out")
    return Goal(posixpath.dirname(stripped) or ("/" if stripped.startswith("/") else "."), posixpath.basename(stripped))


def parts_of(name: str) -> list[str]:
    """Of an archive's entry. Raises CopyRefused where it leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CopyRefused(f"the archive's entry {name!r} leads upwards")
    return parts
