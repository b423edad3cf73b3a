"""`volumes` and `tmpfs` of a service, in the short and the long form."""

from __future__ import annotations

import posixpath

from cli.compose import values
from cli.compose.reader import Field, Reader
from proto import objects_pb2

_LONG_KEYS = frozenset({"type", "source", "target", "read_only", "tmpfs", "volume", "bind"})
_HINTS = {
    "consistency": "it has no effect on Linux; leave it out",
}
_KINDS = {
    "volume": objects_pb2.Mount.KIND_VOLUME,
    "bind": objects_pb2.Mount.KIND_BIND,
    "tmpfs": objects_pb2.Mount.KIND_TMPFS,
}
_BIND_HINTS = {
    "propagation": "what is mounted later on one side is not seen on the other",
    "selinux": "hosts label nothing for tasks",
    "recursive": "what is mounted below it comes with it",
}
_VOLUME_HINTS = {"labels": "an anonymous volume lives as long as its task"}
_RELATIVE_BIND = "is a path on your machine; a bind must be an absolute path that exists on the host, like /srv/data"


def read_volumes(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """Appends to `container.mounts`; refuses two mounts at one path."""
    for each in reader.elements(field):
        mount = _long(reader, each) if each.is_mapping else _short(reader, each)
        if mount is not None:
            _add(reader, each, mount, container)


def read_tmpfs(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """One path or a list of them, each as PATH or PATH:size=64m,mode=1777."""
    for each, text in reader.texts(field, single=True):
        target, colon, options = text.partition(":")
        mount = objects_pb2.Mount(kind=objects_pb2.Mount.KIND_TMPFS)
        try:
            mount.target = _absolute(target)
            for option in options.split(",") if colon else []:
                _tmpfs_option(mount, option.strip())
        except ValueError as error:
            reader.refuse(each, str(error))
            continue
        _add(reader, each, mount, container)


def _add(reader: Reader, field: Field, mount: objects_pb2.Mount, container: objects_pb2.ContainerSpec) -> None:
    if any(known.target == mount.target for known in container.mounts):
        reader.refuse(field, f"mounts a second thing at {mount.target}")
        return
    container.mounts.append(mount)


def _short(reader: Reader, field: Field) -> objects_pb2.Mount | None:
    text = reader.text(field)
    if not text:
        return None
    parts = text.split(":")
    mount = objects_pb2.Mount(kind=objects_pb2.Mount.KIND_VOLUME)
    try:
        if len(parts) > 3:
            raise ValueError(f"{text!r} is not SOURCE:TARGET or SOURCE:TARGET:ro")
        if len(parts) == 1:
            mount.target = _absolute(parts[0])
            return mount
        source, target = parts[0], parts[1]
        mount.target = _absolute(target)
        if source.startswith("/"):
            mount.kind, mount.source = objects_pb2.Mount.KIND_BIND, posixpath.normpath(source)
        elif not source:
            raise ValueError(f"{text!r} has no source before the colon")
        elif source.startswith((".", "~")) or "/" in source:
            raise ValueError(f"{source!r} {_RELATIVE_BIND}")
        else:
            mount.source = source
        for option in parts[2].split(",") if len(parts) == 3 else []:
            if option == "nocopy" and mount.kind == objects_pb2.Mount.KIND_VOLUME:
                mount.no_copy = True
            else:
                mount.read_only = _access(option, mount.read_only)
    except ValueError as error:
        reader.refuse(field, str(error))
        return None
    return mount


def _access(option: str, before: bool) -> bool:
    if option == "ro":
        return True
    if option == "rw":
        return before
    raise ValueError(f"the mount option {option!r} is not supported by Fairway; ro and rw are")


def _long(reader: Reader, field: Field) -> objects_pb2.Mount | None:
    entries = reader.known_entries(field, _LONG_KEYS, _HINTS)
    if "type" not in entries or "target" not in entries:
        reader.refuse(field, "needs type (volume, bind or tmpfs) and target")
        return None
    kind = reader.text(entries["type"])
    if kind not in _KINDS:
        reader.refuse(entries["type"], f"{kind!r} is not volume, bind or tmpfs")
        return None
    mount = objects_pb2.Mount(kind=_KINDS[kind])
    mount.target = reader.parsed(entries["target"], _absolute, "/")
    if "read_only" in entries:
        mount.read_only = reader.boolean(entries["read_only"])
    if "source" in entries:
        mount.source = _long_source(reader, entries["source"], kind)
    elif kind == "bind":
        reader.refuse(field, "needs source, the path on the host")
    if "volume" in entries:
        _volume_options(reader, entries["volume"], kind, mount)
    if "bind" in entries:
        options = reader.known_entries(entries["bind"], frozenset({"create_host_path"}), _BIND_HINTS)
        if "create_host_path" in options and reader.boolean(options["create_host_path"]):
            reader.unsupported(options["create_host_path"], "the folder must exist on the host")
    if "tmpfs" in entries:
        if kind != "tmpfs":
            reader.refuse(entries["tmpfs"], f"belongs to type tmpfs, not {kind}")
        options = reader.known_entries(entries["tmpfs"], frozenset({"size", "mode"}))
        if "size" in options:
            mount.tmpfs_size_bytes = reader.size_bytes(options["size"], low=4096)
        if "mode" in options:
            mount.tmpfs_mode = reader.integer(options["mode"], 0, 0o7777, base=8)
    return mount


def _volume_options(reader: Reader, field: Field, kind: str, mount: objects_pb2.Mount) -> None:
    options = reader.known_entries(field, frozenset({"nocopy", "subpath"}), _VOLUME_HINTS)
    if kind != "volume":
        reader.refuse(field, f"belongs to type volume, not {kind}")
        return
    if "nocopy" in options:
        mount.no_copy = reader.boolean(options["nocopy"])
    if "subpath" in options:
        mount.subpath = posixpath.normpath(reader.text(options["subpath"]))
        if mount.subpath.startswith(("/", "..")) or mount.subpath == ".":
            reader.refuse(options["subpath"], f"{mount.subpath!r} is not a path within the volume")
        elif not mount.source:
            reader.refuse(options["subpath"], "needs a volume with a name, the source")


def _long_source(reader: Reader, field: Field, kind: str) -> str:
    text = reader.text(field)
    if kind == "tmpfs":
        reader.refuse(field, "has no meaning for a tmpfs")
    elif kind == "bind" and text and not text.startswith("/"):
        reader.refuse(field, f"{text!r} {_RELATIVE_BIND}")
    elif kind == "volume" and "/" in text:
        reader.refuse(field, f"{text!r} is not the name of a volume")
    return posixpath.normpath(text) if kind == "bind" and text else text


def _tmpfs_option(mount: objects_pb2.Mount, option: str) -> None:
    name, _, value = option.partition("=")
    if name == "size":
        mount.tmpfs_size_bytes = values.size_bytes(value)
        if mount.tmpfs_size_bytes < 4096:
            raise ValueError(f"a tmpfs of {value} is too small; 4096 bytes is the least")
    elif name == "mode":
        try:
            mount.tmpfs_mode = int(value, 8)
        except ValueError:
            raise ValueError(f"{value!r} is not an octal mode like 1777") from None
        if not 0 < mount.tmpfs_mode <= 0o7777:
            raise ValueError(f"{value!r} is not an octal mode like 1777")
    elif name == "ro":
        mount.read_only = True
    elif name != "rw":
        raise ValueError(f"the tmpfs option {name!r} is not supported by Fairway; size, mode, ro and rw are")


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path in the container")
    path = posixpath.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise ValueError("the root of the container cannot be mounted over")
    return path
