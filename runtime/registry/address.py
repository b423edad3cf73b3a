"""Where an image is to be had: names of images as registries, repositories and references. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from runtime.errors import InvalidRequest
from runtime.references import DEFAULT_REGISTRY, DEFAULT_TAG, normalise_reference

# What Docker Hub's API is called; every other registry is where its name says.
DOCKER_HUB_HOST = "registry-1.docker.io"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
_REGISTRY = re.compile(_HOST)
_MIRROR = re.compile(rf"({_HOST})(/[a-z0-9._-]+)*/?")


@dataclass(frozen=True)
class Endpoint:
    """One registry and how to speak with it. `user` "<token>": the password is an OAuth 2 refresh token."""

    name: str  # host[:port], as images are named after it
    plain_http: bool = False
    authority_pem: str = ""  # of certificates that sign the registry's, beside the system's
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def base_url(self) -> str:
        host = DOCKER_HUB_HOST if self.name == DEFAULT_REGISTRY else self.name
        return f"{'http' if self.plain_http else 'https'}://{host}"


@dataclass(frozen=True)
class Source:
    """A repository in one registry."""

    endpoint: Endpoint
    repository: str

    @property
    def words(self) -> str:
        return f"{self.endpoint.name}/{self.repository}"


@dataclass(frozen=True)
class ImageName:
    """A name taken apart: docker.io, library/redis, and a tag or a digest."""

    registry: str
    repository: str
    reference: str

    @property
    def by_digest(self) -> bool:
        return self.reference.startswith("sha256:")


def parse_name(text: str) -> ImageName:
    """The parts of any name that Docker takes; raises InvalidRequest."""
    name = normalise_reference(text)
    rest, _, digest = name.partition("@")
    registry, _, path = rest.partition("/")
    repository, _, tag = path.partition(":")
    return ImageName(registry, repository, digest or tag or DEFAULT_TAG)


def registry_name(text: str) -> str:
    """host[:port] of a registry, also where it is written as a URL; raises InvalidRequest."""
    name = text.strip().removeprefix("https://").removeprefix("http://").rstrip("/")
    if name in ("index.docker.io/v1", "index.docker.io", DOCKER_HUB_HOST):
        return DEFAULT_REGISTRY
    if not _REGISTRY.fullmatch(name):
        raise InvalidRequest(f"{text!r} is no name of a registry: write HOST or HOST:PORT")
    return name


def parse_mirror(text: str) -> tuple[str, str]:
    """The registry and the path before repositories of a mirror HOST[:PORT][/PATH]; raises InvalidRequest."""
    plain = text.strip().removeprefix("https://").removeprefix("http://")
    match = _MIRROR.fullmatch(plain)
    if match is None:
        raise InvalidRequest(f"{text!r} is no mirror: write HOST[:PORT][/PATH]")
    host = match[1]
    return host, plain[len(host) :].strip("/")
