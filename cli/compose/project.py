"""A Compose file to an `AppSpec`: `load` reads, checks everything, and reports all problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.compose import document, dotenv, extension, references
from cli.compose.environment import Surroundings
from cli.compose.interpolation import InterpolationError, interpolate
from cli.compose.problems import ComposeRefused, Problem, Problems
from cli.compose.reader import Field, Reader
from cli.compose.service import ServiceRead, read_service
from proto import control_pb2

APP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PART_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,126}")
_TOP_KEYS = frozenset({"name", "version", "services", "networks", "volumes"})
_NETWORK_KEYS = frozenset({"internal", "labels", "driver", "enable_ipv6", "x-fairway"})
_TOP_HINTS = {
    "secrets": "there are no secrets yet",
    "configs": "there are no configs yet",
    "include": "put the services into one file",
    "models": "there are no models",
}
_EXTERNAL = "it belongs to the app and is named after it"
_SERVICES_MAX = 1000


@dataclass(frozen=True)
class Project:
    """A file that can be deployed; `warnings` are for the person who wrote it."""

    spec: control_pb2.AppSpec
    warnings: list[str]


def load(path: Path, environment: Mapping[str, str], name: str = "") -> Project:
    """Reads the file at `path` with the variables of `environment` and of `.env` beside it. `name` wins
    over the file's own. Raises ComposeRefused with every problem, OSError where it cannot be read."""
    text = path.read_bytes()
    if len(text) > document.FILE_BYTES_MAX:
        problem = Problem(0, "", f"the file is larger than {document.FILE_BYTES_MAX} bytes")
        raise ComposeRefused(str(path), [problem])
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise ComposeRefused(str(path), [Problem(0, "", f"the file is not UTF-8 text: {error}")]) from error
    folder = path.resolve().parent
    return parse(decoded, str(path), folder, {**_dotenv(folder, environment), **environment}, name)


def parse(text: str, file: str, folder: Path, variables: Mapping[str, str], name: str = "") -> Project:
    """As `load`, for the text of a file; `folder` is where env_file paths start and names the app."""
    problems = Problems(file)

    def replace(value: str, line: int, path: str) -> str:
        def unset(variable: str) -> None:
            problems.warn(line, "", f"the variable {variable} is not set; an empty text takes its place")

        try:
            return interpolate(value, variables, unset)
        except InterpolationError as error:
            problems.add(line, path, str(error))
            return ""

    root = document.parse(text, problems, replace)
    if root is None:
        problems.raise_any()
        problems.add(1, "", "the file is empty; it needs services")
        problems.raise_any()
    assert root is not None
    reader = Reader(problems)
    app = _app(reader, Field(root, ""), Surroundings(folder, variables), name)
    problems.raise_any()
    return Project(app, problems.warnings)


def normalise(name: str) -> str:
    """A folder's name as the name of an app, as Compose makes it; "" where nothing is left."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")[:63]


def _app(reader: Reader, root: Field, surroundings: Surroundings, name: str) -> control_pb2.AppSpec:
    top = reader.known_entries(root, _TOP_KEYS, _TOP_HINTS)
    top = {key: Field(below.item, key) for key, below in top.items()}
    app = control_pb2.AppSpec(name=_name(reader, root, top, surroundings, name))
    if "version" in top:
        reader.warn(top["version"], "is obsolete and has no effect; leave it out")
    networks = _networks(reader, top, app)
    volumes = _volumes(reader, top, app)
    services = _services(reader, root, top, surroundings)
    references.check_ports(reader, services)
    references.check_dependencies(reader, services)  # may settle that a service runs once
    for service in services.values():
        references.check_networks(reader, service, networks)
        references.check_volumes(reader, service, volumes)
        if not service.spec.networks:
            service.spec.networks.append("default")
        if "default" in service.spec.networks and "default" not in app.networks:
            app.networks["default"].SetInParent()
        app.services[service.name].CopyFrom(service.spec)
        if service.labels:
            app.service_labels[service.name].values.update(service.labels)
    return app


def _name(reader: Reader, root: Field, top: dict[str, Field], surroundings: Surroundings, given: str) -> str:
    if given:
        if not APP_NAME.fullmatch(given):
            reader.problems.add(0, "", f"--name {given}: {_NAME_RULE}")
        return given
    if "name" in top:
        name = reader.text(top["name"])
        if name and not APP_NAME.fullmatch(name):
            reader.refuse(top["name"], f"{name!r}: {_NAME_RULE}")
        return name
    name = normalise(surroundings.folder.name)
    if not name:
        reader.refuse(root, "the folder's name makes no name for the app; use --name, or name: at the top")
    return name


_NAME_RULE = "an app's name is lower-case letters, digits, - and _, at most 63, beginning with a letter or digit"


def _services(reader: Reader, root: Field, top: dict[str, Field], surroundings: Surroundings) -> dict[str, ServiceRead]:
    found: dict[str, ServiceRead] = {}
    entries = reader.entries(top["services"]) if "services" in top else {}
    if not entries and ("services" not in top or top["services"].is_null or top["services"].is_mapping):
        reader.refuse(top.get("services", root), "has no services" if "services" in top else "the file has no services")
    if len(entries) > _SERVICES_MAX:
        reader.refuse(top["services"], f"has more than {_SERVICES_MAX} services")
        return {}
    for name, below in entries.items():
        if name.startswith("x-"):
            continue
        if not _PART_NAME.fullmatch(name):
            reader.refuse(below, f"{name!r}: {_PART_RULE}")
        elif not below.is_mapping:
            reader.refuse(below, "must be a mapping with at least image")
        else:
            found[name] = read_service(reader, surroundings, name, below)
    return found


_PART_RULE = "a name here is lower-case letters, digits, - and _, at most 63 (it is a DNS name)"


def _networks(reader: Reader, top: dict[str, Field], app: control_pb2.AppSpec) -> dict[str, Field]:
    entries = reader.entries(top["networks"]) if "networks" in top else {}
    hints = {"external": _EXTERNAL, "name": _EXTERNAL, "ipam": "addresses are given out by Fairway"}
    for name, below in entries.items():
        if not _PART_NAME.fullmatch(name):
            reader.refuse(below, f"{name!r}: {_PART_RULE}")
            continue
        network = app.networks[name]
        known = reader.known_entries(below, _NETWORK_KEYS, hints)
        if "internal" in known:
            network.internal = reader.boolean(known["internal"])
        if "enable_ipv6" in known:
            wanted = reader.boolean(known["enable_ipv6"])
            network.ipv6_disabled = not wanted
            network.ipv6_wanted_line = known["enable_ipv6"].line if wanted else 0
        if "labels" in known:
            network.labels.update(reader.labels(known["labels"]))
        if "x-fairway" in known:
            extension.read_network_extension(reader, known["x-fairway"], network)
        if "driver" in known and (driver := reader.text(known["driver"])) not in ("overlay", "bridge", ""):
            reader.refuse(known["driver"], f"{driver!r} is not supported by Fairway (leave it out)")
    return entries


def _volumes(reader: Reader, top: dict[str, Field], app: control_pb2.AppSpec) -> dict[str, Field]:
    entries = reader.entries(top["volumes"]) if "volumes" in top else {}
    hints = {"external": _EXTERNAL, "name": _EXTERNAL}
    for name, below in entries.items():
        if not _VOLUME_NAME.fullmatch(name):
            reader.refuse(below, f"{name!r} is not the name of a volume (letters, digits, _, . and -)")
            continue
        volume = app.volumes[name]
        volume.SetInParent()
        known = reader.known_entries(below, frozenset({"labels", "driver", "driver_opts"}), hints)
        if "labels" in known:
            volume.labels.update(reader.labels(known["labels"]))
        if "driver" in known and (driver := reader.text(known["driver"])) not in ("local", ""):
            reader.refuse(known["driver"], f"{driver!r} is not supported by Fairway (only local is)")
        if "driver_opts" in known and reader.entries(known["driver_opts"]):
            reader.unsupported(known["driver_opts"], "a volume is a folder on its host")
    return entries


def _dotenv(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    path = folder / ".env"
    try:
        return dotenv.parse(path.read_text(), environment)
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except UnicodeDecodeError as error:
        raise ComposeRefused(str(path), [Problem(0, "", f"the file is not UTF-8 text: {error}")]) from error
    except dotenv.DotenvError as error:
        raise ComposeRefused(str(path), [Problem(error.line, "", str(error))]) from error
