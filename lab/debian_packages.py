"""Takes programs out of Debian packages without installing them: download, unpack, find what they need."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.layout import LabError
from lab.oci_archive import RootFilesystem

CACHE = Path(__file__).parent.parent / ".cache"
_DOWNLOAD_TIMEOUT_SECONDS = 300
_UPDATE_TIMEOUT_SECONDS = 300
_LIST_TIMEOUT_SECONDS = 60


def unpacked(name: str, packages: Sequence[str], with_libraries: bool = True) -> Path:
    """A folder with the files of `packages` and (by their dependencies) of the libraries they need.

    Kept in .cache/packages; nothing on the machine is installed or changed. Two callers at once are fine.
    """
    key = hashlib.sha256(f"{sorted(packages)} {with_libraries}".encode()).hexdigest()[:12]
    folder = CACHE / "packages" / f"{name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / ".complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        downloads = folder / ".downloads"
        downloads.mkdir(parents=True)
        wanted = list(packages)
        _make_lists_current(wanted)
        if with_libraries:
            wanted += [package for package in _dependencies(packages) if package not in wanted]
        _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *wanted], downloads)
        for archive in sorted(downloads.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(folder)], downloads)
        shutil.rmtree(downloads)
        (folder / ".complete").touch()
    return folder


def _run(argv: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv[:6])} ...` took longer than {_DOWNLOAD_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise LabError(f"`{' '.join(argv[:6])} ...` failed: {done.stderr.strip()[-800:]}")
    return done.stdout


def _make_lists_current(packages: Sequence[str]) -> None:
    """apt-get update, only where apt does not know a package at all."""
    known = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *packages],
        capture_output=True,
        timeout=_LIST_TIMEOUT_SECONDS,
        check=False,
    )
    if known.returncode != 0:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=_UPDATE_TIMEOUT_SECONDS, check=False)


def _dependencies(packages: Sequence[str]) -> list[str]:
    """Names of the library packages that `packages` need, directly or not."""
    excluded = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
    listing = _run(["apt-cache", "depends", "--recurse", *[f"--no-{kind}" for kind in excluded], *packages], CACHE)
    found = [line for line in listing.splitlines() if line and line[0] not in " |<"]
    plain = [name.partition(":")[0] for name in found]
    return sorted({name for name in plain if name.startswith(("lib", "lua-")) and "perl" not in name})


def add_program(root: RootFilesystem, program: Path, target: str, tree: Path = Path("/")) -> None:
    """Adds a program, and the shared libraries that the dynamic linker would give it, to `root`.

    `tree`: the folder of unpacked packages that its libraries come from, the machine itself by default.
    """
    source = _resolve(tree, program)
    root.add_file(target, source)
    for library in shared_libraries(source, tree):
        name = f"usr/lib/{library.name}"
        if library.name.startswith("ld-linux"):
            root.add_file(f"lib64/{library.name}", library.resolve())
        elif name not in root.files:
            root.add_file(name, library.resolve())


def _resolve(tree: Path, path: Path) -> Path:
    """Follows links inside `tree`, where absolute ones are meant to be relative to it."""
    for _ in range(10):
        if not path.is_symlink():
            return path
        target = path.readlink()
        path = tree / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    raise LabError(f"{path} is a circle of links")


def library_folders(tree: Path) -> list[Path]:
    """Where packages of Debian put libraries, of those folders that `tree` has."""
    places = [
        *tree.glob("usr/lib/*-linux-gnu*"),
        *tree.glob("lib/*-linux-gnu*"),
        tree / "usr/lib",
        tree / "lib",
    ]
    return [place for place in places if place.is_dir()]


def shared_libraries(program: Path, tree: Path) -> list[Path]:
    """Files that the dynamic linker loads for `program`, itself included; empty for a static one."""
    with program.open("rb") as file:
        names_linker = b"/ld-linux" in file.read(4096)  # the PT_INTERP segment of a dynamic program (elf(5))
    if not names_linker and ".so" not in program.name:
        return []
    linkers = [path for folder in library_folders(tree) for path in folder.glob("ld-linux*.so*")]
    linkers += list(tree.glob("lib64/ld-linux*.so*")) or list(Path("/").glob("lib64/ld-linux*.so*"))
    if not linkers:
        raise LabError(f"no dynamic linker is in {tree} or /lib64; is libc6 installed?")
    linker = next((path for path in linkers if path.exists()), linkers[0])
    search = ":".join(str(folder) for folder in library_folders(tree))
    done = subprocess.run(
        [str(linker), "--library-path", search, "--list", str(program)],
        capture_output=True,
        text=True,
        timeout=_LIST_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"libraries of {program} could not be found: {(done.stderr or done.stdout).strip()}")
    found = [linker]
    for line in done.stdout.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and rest.startswith("/") and not Path(name).name.startswith("ld-linux"):
            found.append(Path(rest.split(" (")[0]))
        elif arrow and rest.startswith("not found"):
            raise LabError(f"{program} needs {name}, which none of the packages holds")
    return found
