"""Real resolvers, as programs in a task's network with a resolv.conf of their own: glibc's, busybox's and musl's."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import debian_packages

KINDS = ("glibc", "busybox", "musl")
SECONDS_MAX = 60.0
_PROGRAM = r"""
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **words) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[64];
    if (getaddrinfo(words[1], 0, &hints, &found)) return 2;
    for (; found; found = found->ai_next) {
        void *address = found->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
                                                    : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, address, text, sizeof text));
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Found:
    addresses: frozenset[str]  # empty: there is no such name
    seconds: float


class Resolver:
    """`folder` keeps its resolv.conf."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self._program = _musl_program() if kind == "musl" else None

    def look_up(self, namespace: Path, name: str, resolv_conf: str) -> Found:
        """Both families at once, as programs do."""
        file = self._folder / "resolv.conf"
        file.write_text(resolv_conf)
        words = {
            "glibc": ["getent", "ahosts", name],
            "busybox": ["busybox", "nslookup", name],
            "musl": [str(self._program), name],
        }[self._kind]
        inside = ["sh", "-c", f'mount --bind {file} /etc/resolv.conf && exec "$@"', "sh", *words]
        began = time.monotonic()
        done = subprocess.run(
            ["nsenter", f"--net={namespace}", "unshare", "--mount", *inside],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        seconds = time.monotonic() - began
        assert "mount" not in done.stderr, done.stderr
        if self._kind == "busybox":
            return Found(_addresses_of_nslookup(done.stdout), seconds)
        return Found(frozenset(line.split()[0] for line in done.stdout.splitlines() if line), seconds)


def _addresses_of_nslookup(output: str) -> frozenset[str]:
    """Addresses behind the name; those before it are the server's."""
    _, _, answer = output.partition("\n\n")
    lines = [line.split() for line in answer.splitlines() if line.startswith("Address")]
    return frozenset(words[-1] for words in lines)


def _musl_program() -> Path:
    """A program with musl's resolver in it, from Debian's package and the compiler of this machine."""
    assert shutil.which("gcc"), "gcc is needed to build a program with musl's resolver: `./run setup` installs it"
    tree = debian_packages.unpacked("musl", ["musl", "musl-dev"], with_libraries=False)
    program = tree / "look-up"
    with (tree / "look-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            library, headers = next(tree.glob("usr/lib/*-linux-musl")), next(tree.glob("usr/include/*-linux-musl"))
            source = tree / "look-up.c"
            source.write_text(_PROGRAM)
            options = ["-nostdinc", "-isystem", str(headers), "-nostdlib", "-static", "-no-pie"]
            objects = [str(library / name) for name in ("crt1.o", "crti.o")]
            objects += [str(source), str(library / "libc.a"), "-lgcc", str(library / "crtn.o")]
            made = tree / "look-up.new"  # what is there under its name is whole
            subprocess.run(["gcc", *options, *objects, "-o", str(made)], check=True, timeout=SECONDS_MAX)
            made.rename(program)
    return program
