"""The small files that a task finds in /etc: resolv.conf, hosts, hostname."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from runtime.model import BindMount

NAMES = ("resolv.conf", "hosts", "hostname")


def hosts_file(names: str, address: str, extra: Sequence[tuple[str, str]] = ()) -> str:
    """Content of /etc/hosts: loopback, the task itself by its `names`, and (name, address) of `extra`."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{address}\t{names}"]
    lines += [f"{target}\t{name}" for name, target in extra]
    return "\n".join(lines) + "\n"


def write(
    folder: Path,
    resolv_conf: str,
    hostname: str,
    address: str,
    extra_hosts: Sequence[tuple[str, str]] = (),
    domainname: str = "",
) -> tuple[BindMount, ...]:
    """Writes the files below `folder` and gives the mounts for them. Raises OSError."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    folder.mkdir(parents=True, exist_ok=True)
    contents = (resolv_conf, hosts_file(names, address, extra_hosts), hostname + "\n")
    mounts = []
    for name, content in zip(NAMES, contents, strict=True):
        path = folder / name
        path.write_text(content)
        path.chmod(0o644)
        mounts.append(BindMount(path, f"/etc/{name}"))
    return tuple(mounts)


def remove(folder: Path) -> None:
    """Removes what `write` made; safe to repeat."""
    shutil.rmtree(folder, ignore_errors=True)
