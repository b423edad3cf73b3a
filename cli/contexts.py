"""Contexts: the clusters this person can reach from here, kept in ~/.config/fairway/contexts.json.

The folder holds `contexts.json` and a folder of PEM files a context; all are readable by their owner only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.failure import CommandFailed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PEM_FILES = ("certificate", "key", "ca")
FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Context:
    """How to reach one cluster. `addresses` are host:port, tried in turn; the rest are paths of PEM files,
    relative to the folder of contexts."""

    name: str
    addresses: list[str]
    certificate: str
    key: str
    ca: str
    cluster_id: str = ""


@dataclass(frozen=True)
class Contexts:
    """The contents of contexts.json."""

    folder: Path
    current: str = ""
    known: dict[str, Context] = field(default_factory=dict)

    def find(self, name: str) -> Context:
        """Raises CommandFailed where there is none of this name."""
        if name not in self.known:
            names = ", ".join(sorted(self.known)) or "none yet"
            raise CommandFailed(f"context {name}", f"there is no such context; known: {names}")
        return self.known[name]


def folder_of(environment: Mapping[str, str]) -> Path:
    """$FAIRWAY_CONFIG, else $XDG_CONFIG_HOME/fairway, else ~/.config/fairway."""
    if given := environment.get("FAIRWAY_CONFIG"):
        return Path(given)
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "fairway"


def read(folder: Path) -> Contexts:
    """Raises CommandFailed where the file is there and cannot be understood."""
    path = folder / "contexts.json"
    try:
        data = json.loads(path.read_text())
        known = {name: Context(name=name, **value) for name, value in data["contexts"].items()}
        return Contexts(folder, str(data["current"]), known)
    except FileNotFoundError:
        return Contexts(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CommandFailed(f"read {path}", f"{error}; correct the file or move it away") from error


def use(contexts: Contexts, name: str) -> None:
    """Makes `name` the context of every command that names none; "" for none."""
    if name:
        contexts.find(name)
    _write(contexts.folder, name, contexts.known)


def remove(contexts: Contexts, name: str) -> None:
    contexts.find(name)
    known = {key: value for key, value in contexts.known.items() if key != name}
    _write(contexts.folder, "" if contexts.current == name else contexts.current, known)
    shutil.rmtree(contexts.folder / name, ignore_errors=True)


def add(contexts: Contexts, name: str, addresses: list[str], pem: Mapping[str, bytes], cluster_id: str = "") -> str:
    """Stores a context and returns its name: `name`, or that with a number where another cluster has it.
    `pem` holds "certificate", "key" and "ca". Becomes the current context where there is none."""
    if not _NAME.fullmatch(name):
        raise CommandFailed(f"context {name!r}", "a context's name is letters, digits, _, . and -")
    chosen, number = name, 1
    while chosen in contexts.known and (not cluster_id or contexts.known[chosen].cluster_id != cluster_id):
        number += 1
        chosen = f"{name}-{number}"
    below = contexts.folder / chosen
    _make_private_folder(contexts.folder)
    _make_private_folder(below)
    for kind in _PEM_FILES:
        _write_private(below / f"{kind}.pem", pem[kind])
    paths = {kind: f"{chosen}/{kind}.pem" for kind in _PEM_FILES}
    context = Context(name=chosen, addresses=addresses, cluster_id=cluster_id, **paths)
    _write(contexts.folder, contexts.current or chosen, {**contexts.known, chosen: context})
    return chosen


def read_pem(contexts: Contexts, context: Context) -> dict[str, bytes]:
    """ "certificate", "key" and "ca"; refuses a private key that others can read, as ssh does."""
    found = {}
    for kind in _PEM_FILES:
        path = contexts.folder / getattr(context, kind)
        try:
            if kind == "key" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise CommandFailed(f"context {context.name}", f"others can read {path}; run: chmod 600 {path}")
            found[kind] = path.read_bytes()
        except OSError as error:
            raise CommandFailed(f"context {context.name}", f"{path}: {error.strerror}") from error
    return found


def export(contexts: Contexts, name: str) -> str:
    """The context as one JSON text, its private key included, for `load_export` elsewhere."""
    context = contexts.find(name)
    pem = {kind: text.decode() for kind, text in read_pem(contexts, context).items()}
    document = {
        "name": context.name,
        "addresses": context.addresses,
        "cluster_id": context.cluster_id,
        "pem": pem,
    }
    return json.dumps(document, indent=2) + "\n"


def load_export(contexts: Contexts, text: str, name: str = "") -> str:
    """Stores what `export` wrote; returns the context's name."""
    try:
        document = json.loads(text)
        pem = {kind: str(document["pem"][kind]).encode() for kind in _PEM_FILES}
        addresses = [str(address) for address in document["addresses"]]
        chosen = name or str(document["name"])
        cluster_id = str(document["cluster_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed("import a context", f"this is not what 'fairway context export' writes: {error}") from error
    return add(contexts, chosen, addresses, pem, cluster_id)


def _make_private_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"write {path}", error.strerror or str(error)) from error


def _write(folder: Path, current: str, known: Mapping[str, Context]) -> None:
    contexts = {}
    for name, context in sorted(known.items()):
        contexts[name] = {key: value for key, value in asdict(context).items() if key != "name"}
    _make_private_folder(folder)
    text = json.dumps({"current": current, "contexts": contexts}, indent=2) + "\n"
    _write_private(folder / "contexts.json", text.encode())


def _write_private(path: Path, data: bytes) -> None:
    """Replaces the file at once: a reader sees the old or the new one. mkstemp makes it mode 0600."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandFailed(f"write {path}", error.strerror or str(error)) from error
