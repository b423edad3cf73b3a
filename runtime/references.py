"""Names of images, read the way that Docker reads them."""

from __future__ import annotations

import re

from runtime.errors import InvalidRequest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
NAME_LENGTH_MAX = 255

_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def normalise_reference(text: str) -> str:
    """redis -> docker.io/library/redis:latest; raises InvalidRequest where it is no name of an image.

    A digest is kept: redis@sha256:... -> docker.io/library/redis@sha256:...
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidRequest(f"image {text!r}: the digest must be sha256: and 64 hexadecimal digits")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.startswith("[")):
        registry, path_and_tag = head, tail
    else:
        registry, path_and_tag = DEFAULT_REGISTRY, rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    path, colon, tag = path_and_tag.partition(":")
    if registry == DEFAULT_REGISTRY and path and "/" not in path:
        path = f"library/{path}"
    if not _REGISTRY.fullmatch(registry):
        raise InvalidRequest(f"image {text!r}: {registry!r} is no name of a registry")
    if not _PATH.fullmatch(path):
        raise InvalidRequest(f"image {text!r}: names are lower-case letters, digits and . _ - between /")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidRequest(f"image {text!r}: {tag!r} is no tag")
    name = f"{registry}/{path}"
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidRequest(f"image {text!r}: the name is longer than {NAME_LENGTH_MAX} characters")
    if at:
        return f"{name}@{digest}"
    return f"{name}:{tag or DEFAULT_TAG}"


def with_digest(name: str, digest: str) -> str:
    """docker.io/library/redis:7 -> docker.io/library/redis@sha256:...; of a name that is normalised."""
    repository, slash, last = name.partition("@")[0].rpartition("/")
    return f"{repository}{slash}{last.partition(':')[0]}@{digest}"
