"""Devices by the Container Device Interface, as its specifications say them; all immutable.

Source: https://github.com/cncf-tags/container-device-interface, SPEC.md, versions 0.3.0 to 1.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import RuntimeFailure

SPEC_DEVICES_MAX = 512  # of one file, and of one host
ENTRIES_MAX = 512  # of each list of edits


class CdiFault(RuntimeFailure):
    """A specification that cannot be used; `str()` says what is wrong with it."""


@dataclass(frozen=True)
class CdiNode:
    """A device file to make. What is None is as the host's file has it; `uid` and `gid`: as the process has them."""

    path: str  # in the container
    host_path: str
    kind: str | None = None  # "c", "b", "p"
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    permissions: str = "rwm"  # "": the control group allows nothing of it
    uid: int | None = None
    gid: int | None = None

    @property
    def complete(self) -> bool:
        """The host need not have the file."""
        return self.kind is not None and (self.kind == "p" or (self.major is not None and self.minor is not None))


@dataclass(frozen=True)
class CdiMount:
    host_path: str
    container_path: str
    kind: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CdiHook:
    """A program of the host that runs as root at `name`, a moment of the OCI specification ("createContainer")."""

    name: str
    path: str
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    timeout_s: int | None = None


@dataclass(frozen=True)
class CdiEdits:
    environment: tuple[str, ...] = ()  # "NAME=value"
    nodes: tuple[CdiNode, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    hooks: tuple[CdiHook, ...] = ()
    groups: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.environment or self.nodes or self.mounts or self.hooks or self.groups)


@dataclass(frozen=True)
class CdiDevice:
    kind: str  # "vendor.com/class"
    name: str
    edits: CdiEdits
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the specification too; the device's own win

    @property
    def full_name(self) -> str:
        """ "vendor.com/class=name" """
        return f"{self.kind}={self.name}"


@dataclass(frozen=True)
class CdiSpec:
    """One file. `edits` are made once for a container with any of its devices."""

    path: Path
    version: str
    kind: str
    devices: tuple[CdiDevice, ...]
    edits: CdiEdits
