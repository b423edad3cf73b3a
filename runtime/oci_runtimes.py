"""Runtimes by name: programs that runc's shim calls in runc's place, and shims of their own.

A program is named as it is installed ("crun"); a shim as containerd calls it ("io.containerd.kata.v2", whose program
is containerd-shim-kata-v2: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage

from proto import containerd_pb2 as api
from proto.container_rules import RUNC, SHIM_PREFIX
from runtime.cgroup import CGROUP_FOLDER
from runtime.errors import MissingFeature

CRUN = "crun"
RUNC_SHIM = "io.containerd.runc.v2"
OPTIONS_TYPE = "containerd.runc.v1.Options"


@dataclass(frozen=True)
class OciRuntime:
    """What containerd is told: the shim, and its options where they are known."""

    shim: str
    options: AnyMessage | None


def installed(named: Iterable[str]) -> list[str]:
    """Of those that the host's configuration names, and runc, the ones that are there."""
    kept = [name for name in dict.fromkeys((RUNC, *named)) if name == RUNC or shutil.which(program_of(name))]
    return [name for name in kept if name != CRUN or not _in_both_hierarchies()]


def _in_both_hierarchies() -> bool:
    """Where control groups of version 1 leave controllers to version 2, crun refuses to run anything."""
    try:
        return bool((CGROUP_FOLDER / "unified/cgroup.controllers").read_text().split())
    except OSError:
        return False


def program_of(name: str) -> str:
    """The program that must be there: "crun", "containerd-shim-kata-v2"."""
    if not name.startswith(SHIM_PREFIX):
        return name
    return f"containerd-shim-{name.removeprefix(SHIM_PREFIX).replace('.', '-')}"


def find(name: str, named: Iterable[str], runc_root: Path, owner: int = 0) -> OciRuntime:
    """`name` empty: runc. Each program has its state in a folder of this daemon's own, at creation and for every later
    call of the shim. `owner`: of what the container writes its output to, as it opens it again by /dev/stdout. Raises
    MissingFeature."""
    if name in ("", RUNC):
        return OciRuntime(RUNC_SHIM, _options(runc_root, owner))
    if name not in named:
        raise MissingFeature(f"runtime {name} is none of this host's: name it in containerd.runtimes of fairwayd.toml")
    program = shutil.which(program_of(name))
    if program is None:
        raise MissingFeature(f"runtime {name} needs the program {program_of(name)}, which this host does not have")
    if name.startswith(SHIM_PREFIX):
        return OciRuntime(name, None)
    return OciRuntime(RUNC_SHIM, _options(runc_root.with_name(f"{runc_root.name}-{name}"), owner, program))


def _options(root: Path, owner: int, program: str = "") -> AnyMessage:
    options = api.RuncOptions(root=str(root), binary_name=program, io_uid=owner, io_gid=owner)
    return AnyMessage(type_url=OPTIONS_TYPE, value=options.SerializeToString())
