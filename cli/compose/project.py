"""A Compose file to an `AppSpec`: `load` reads, checks everything, and reports all problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.compose import extension, external, profiles, references, sharing, task_files
from cli.compose.document import Source
from cli.compose.environment import Surroundings
from cli.compose.problems import ComposeRefused, Problem, Problems
from cli.compose.project_files import STANDARD_INPUT, FileText, ProjectFiles, beside, called, read_text, read_variables
from cli.compose.reader import Field, Reader
from cli.compose.service import ServiceRead, read_service
from proto import control_pb2

APP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PART_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,126}")
_TOP_KEYS = frozenset({"name", "version", "services", "networks", "volumes", "configs", "secrets"})
_NETWORK_KEYS = external.KEYS | {"internal", "labels", "driver", "enable_ipv6", "x-fairway"}
_TOP_HINTS = {
    "models": "there are no models",
}
_SERVICES_MAX = 1000


@dataclass(frozen=True)
class Project:
    """A file that can be deployed; `warnings` are for the person who wrote it."""

    spec: control_pb2.AppSpec
    warnings: list[str]


@dataclass(frozen=True)
class Choices:
    """What the person who deploys says beside the files."""

    name: str = ""  # of the app: wins over the files' own
    profiles: tuple[str, ...] = ()  # beside those of COMPOSE_PROFILES
    env_files: tuple[Path, ...] = ()  # in place of `.env` beside the first file


def load(paths: Sequence[Path], environment: Mapping[str, str], choices: Choices | None = None) -> Project:
    """Reads the files at `paths`, each over those before it, with the variables of `environment` and, below it, of
    `.env` beside the first; "-" is standard input, whose relative paths begin at the working directory. Raises
    ComposeRefused with every problem, OSError where one cannot be read."""
    choices = choices or Choices()
    if list(paths).count(STANDARD_INPUT) > 1:
        raise ComposeRefused(called(STANDARD_INPUT), [Problem(0, "", "it is given twice, and can be read once")])
    folder = paths[0].resolve().parent
    variables = read_variables(choices.env_files or beside(folder), environment)
    files = [FileText(read_text(path), Source(called(path), folder)) for path in paths]
    return _parsed(files, variables, choices, tuple(path.resolve() for path in paths))


def parse(text: str, file: str, folder: Path, variables: Mapping[str, str], choices: Choices | None = None) -> Project:
    """As `load`, for the text of one file; `folder` is where its relative paths begin, and names the app."""
    return _parsed([FileText(text, Source(file, folder))], variables, choices or Choices(), (folder / file,))


def _parsed(
    files: Sequence[FileText], variables: Mapping[str, str], choices: Choices, trail: tuple[Path, ...]
) -> Project:
    problems = Problems(files[0].source.file)
    root = ProjectFiles(problems).tree(files, variables, trail)
    if root is None:
        problems.raise_any()
        problems.add(1, "", "the file is empty; it needs services")
        problems.raise_any()
    assert root is not None
    app = _app(Reader(problems), Field(root, ""), Surroundings(files[0].source.folder, variables), choices)
    problems.raise_any()
    return Project(app, problems.warnings)


def normalise(name: str) -> str:
    """A folder's name as the name of an app, as Compose makes it; "" where nothing is left."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")[:63]


def _app(reader: Reader, root: Field, surroundings: Surroundings, choices: Choices) -> control_pb2.AppSpec:
    top = reader.known_entries(root, _TOP_KEYS, _TOP_HINTS)
    app = control_pb2.AppSpec(name=_name(reader, root, top, surroundings, choices.name))
    if "version" in top:
        reader.warn(top["version"], "is obsolete and has no effect; leave it out")
    networks = _networks(reader, top, app)
    volumes = _volumes(reader, top, app)
    definitions = task_files.read_definitions(reader, top, app.name)
    services = _services(reader, root, top, surroundings)
    hidden = services
    services = profiles.active(reader, services, profiles.wanted(choices.profiles, surroundings.environment))
    references.check_ports(reader, services)
    task_files.add_files(reader, services.values(), definitions, surroundings, app)
    references.check_dependencies(reader, services)  # may settle that a service runs once
    for service in services.values():
        sharing.check_sharing(reader, service, services, hidden)
        references.check_networks(reader, service, networks)
        references.check_volumes(reader, service, volumes)
        if not service.spec.networks and not service.without_network:
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
    if given := surroundings.environment.get("COMPOSE_PROJECT_NAME", ""):
        if not APP_NAME.fullmatch(given):
            reader.problems.add(0, "", f"COMPOSE_PROJECT_NAME={given}: {_NAME_RULE}")
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
    hints = {"ipam": "addresses are given out by Fairway"}
    for name, below in entries.items():
        if not _PART_NAME.fullmatch(name):
            reader.refuse(below, f"{name!r}: {_PART_RULE}")
            continue
        network = app.networks[name]
        network.SetInParent()
        known = reader.known_entries(below, _NETWORK_KEYS, hints)
        if external.read_external(reader, below, known, network):
            continue
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
    for name, below in entries.items():
        if not _VOLUME_NAME.fullmatch(name):
            reader.refuse(below, f"{name!r} is not the name of a volume (letters, digits, _, . and -)")
            continue
        volume = app.volumes[name]
        volume.SetInParent()
        known = reader.known_entries(below, external.KEYS | {"labels", "driver", "driver_opts"})
        if external.read_external(reader, below, known, volume):
            continue
        if "labels" in known:
            volume.labels.update(reader.labels(known["labels"]))
        if "driver" in known and (driver := reader.text(known["driver"])) not in ("local", ""):
            reader.refuse(known["driver"], f"{driver!r} is not supported by Fairway (only local is)")
        if "driver_opts" in known and reader.entries(known["driver_opts"]):
            reader.unsupported(known["driver_opts"], "a volume is a folder on its host")
    return entries
