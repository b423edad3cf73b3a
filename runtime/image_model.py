"""Manifests, indexes and configurations of images as JSON, checked. Pure.

Formats: https://github.com/opencontainers/image-spec, and Docker's "v2 schema 2", which has other
media types.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proto import containerd_pb2 as api
from proto import objects_pb2
from runtime.errors import InvalidImage, WrongArchitecture
from runtime.model import ImageConfig

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
MANIFEST_TYPES = (f"{OCI}manifest.v1+json", f"{DOCKER}distribution.manifest.v2+json")
INDEX_TYPES = (f"{OCI}index.v1+json", f"{DOCKER}distribution.manifest.list.v2+json")
CONFIG_TYPE = f"{OCI}config.v1+json"
LAYER_TAR = f"{OCI}layer.v1.tar"
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
LAYERS_MAX = 500

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Blob:
    """A descriptor: what a document says of a blob that it refers to."""

    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class Manifest:
    digest: str
    media_type: str
    size_bytes: int
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def total_bytes(self) -> int:
        return self.size_bytes + self.config.size_bytes + sum(layer.size_bytes for layer in self.layers)


def host_architecture() -> str:
    """In OCI's words: amd64, arm64, ..."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether it is of the one form of digest that is understood."""
    return _DIGEST.fullmatch(text) is not None


def checked_digest(text: object, where: str) -> str:
    """A sha256 digest; it becomes part of file names, so nothing else passes."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InvalidImage(f"{where} has the digest {text!r}; only sha256 digests are understood")
    return text


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object; raises InvalidImage."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"{where} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidImage(f"{where} is not a JSON object")
    return document


def parse_blob(entry: object, where: str) -> Blob:
    if not isinstance(entry, dict):
        raise InvalidImage(f"{where} is not a descriptor")
    size_bytes = entry.get("size")
    if not isinstance(size_bytes, int) or size_bytes < 0:
        raise InvalidImage(f"{where} has the size {size_bytes!r}")
    return Blob(checked_digest(entry.get("digest"), where), size_bytes, str(entry.get("mediaType", "")))


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """A manifest of one platform; raises InvalidImage."""
    document = parse_document(data, "the manifest")
    kind = str(document.get("mediaType") or media_type or MANIFEST_TYPES[0])
    layers = document.get("layers")
    if kind in INDEX_TYPES or "manifests" in document:
        raise InvalidImage("this is an index of images for several platforms; name the manifest of one of them")
    if kind not in MANIFEST_TYPES or not isinstance(layers, list) or "config" not in document:
        raise InvalidImage(f"the manifest is of type {kind!r}, which is no image")
    if len(layers) > LAYERS_MAX:
        raise InvalidImage(f"the manifest has {len(layers)} layers; at most {LAYERS_MAX} are allowed")
    return Manifest(
        digest_of(data),
        kind,
        len(data),
        parse_blob(document["config"], "the manifest's config"),
        tuple(parse_blob(layer, f"layer {number}") for number, layer in enumerate(layers)),
    )


def choose_platform(entries: Sequence[dict[str, Any]], architecture: str) -> dict[str, Any]:
    """The index entry for Linux on `architecture`, or one without a platform; raises WrongArchitecture."""
    offered = []
    for entry in entries:
        wanted = entry.get("platform")
        if not isinstance(wanted, dict):
            return entry
        if wanted.get("os") == "linux" and wanted.get("architecture") == architecture:
            return entry
        offered.append(f"{wanted.get('os')}/{wanted.get('architecture')}")
    all_offered = ", ".join(sorted(set(offered))) or "nothing"
    raise WrongArchitecture(f"the image is for {all_offered}; this host needs linux/{architecture}")


def parse_config(data: bytes) -> ImageConfig:
    """Raises InvalidImage where it is no image configuration."""
    document = parse_document(data, "the image's configuration")
    settings = document.get("config") or {}
    layers = document.get("rootfs") or {}
    if not isinstance(settings, dict) or not isinstance(layers, dict):
        raise InvalidImage("the image's configuration has the wrong shape")
    diff_ids = _texts(layers.get("diff_ids"), "rootfs.diff_ids")
    return ImageConfig(
        architecture=_ARCHITECTURES.get(str(document.get("architecture")), str(document.get("architecture"))),
        operating_system=str(document.get("os", "")),
        diff_ids=tuple(checked_digest(diff_id, "rootfs.diff_ids") for diff_id in diff_ids),
        entrypoint=_texts(settings.get("Entrypoint"), "Entrypoint"),
        command=_texts(settings.get("Cmd"), "Cmd"),
        environment=_texts(settings.get("Env"), "Env"),
        user=str(settings.get("User") or ""),
        working_dir=str(settings.get("WorkingDir") or ""),
        stop_signal=str(settings.get("StopSignal") or ""),
        healthcheck=_healthcheck(settings.get("Healthcheck")),
        exposed_ports=tuple(sorted(settings.get("ExposedPorts") or {})),
        volumes=tuple(sorted(settings.get("Volumes") or {})),
        labels={str(name): str(value) for name, value in (settings.get("Labels") or {}).items()},
    )


def check_platform(config: ImageConfig, architecture: str) -> None:
    """Raises WrongArchitecture where this host cannot run the image."""
    if (config.operating_system, config.architecture) != ("linux", architecture):
        raise WrongArchitecture(
            f"the image is for {config.operating_system or 'an unknown system'}/{config.architecture}; "
            f"this host needs linux/{architecture}"
        )


def check_layers(manifest: Manifest, config: ImageConfig) -> None:
    if len(manifest.layers) != len(config.diff_ids) or not manifest.layers:
        raise InvalidImage(f"the manifest has {len(manifest.layers)} layers, the configuration {len(config.diff_ids)}")


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Names of the snapshots, lowest first (image-spec, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def descriptor(blob: Blob) -> api.Descriptor:
    return api.Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size_bytes)


def references(manifest: Manifest) -> dict[str, str]:
    """containerd's labels that keep the blobs of a manifest from being collected."""
    labels = {"containerd.io/gc.ref.content.config": manifest.config.digest}
    for number, layer in enumerate(manifest.layers):
        labels[f"containerd.io/gc.ref.content.l.{number}"] = layer.digest
    return labels


def _healthcheck(entry: object) -> objects_pb2.Healthcheck | None:
    if not isinstance(entry, dict) or not entry.get("Test"):
        return None
    return objects_pb2.Healthcheck(
        test=_texts(entry["Test"], "Healthcheck.Test"),
        interval_ms=int(entry.get("Interval") or 0) // _NS_PER_MS,
        timeout_ms=int(entry.get("Timeout") or 0) // _NS_PER_MS,
        retries=int(entry.get("Retries") or 0),
        start_period_ms=int(entry.get("StartPeriod") or 0) // _NS_PER_MS,
        start_interval_ms=int(entry.get("StartInterval") or 0) // _NS_PER_MS,
    )


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidImage(f"the image's configuration: {where} is not a list of texts")
    return tuple(value)
