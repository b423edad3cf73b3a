"""Finds the images of an archive: in an OCI layout's index.json, or in manifest.json of `docker save`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Protocol

from runtime import image_model
from runtime.errors import InvalidImage, InvalidRequest
from runtime.image_model import Blob, Manifest
from runtime.references import normalise_reference

IMAGES_MAX = 1_000
INDEX_DEPTH_MAX = 4
# What writers of OCI layouts name an image by: containerd and Docker the first, all others the second.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Members(Protocol):
    """What this needs of an archive."""

    def has(self, name: str) -> bool: ...
    def document(self, name: str) -> bytes: ...
    def part(self, name: str) -> Any: ...
    def chunks(self, part: Any) -> Any: ...


@dataclass(frozen=True)
class Found:
    """One image: its name, its manifest, small blobs by digest, and the archive members of its layers."""

    name: str
    manifest: Manifest
    documents: dict[str, bytes]  # digest -> manifest and configuration
    members: dict[str, str]  # layer's digest -> member's name


def images(archive: Members, name: str | None, architecture: str) -> list[Found]:
    """Raises InvalidImage, WrongArchitecture, or InvalidRequest on a name that does not fit.

    `name` replaces the archive's own, and then the archive may hold one image only.
    """
    if archive.has("index.json"):
        found = _from_layout(archive, architecture)
    elif archive.has("manifest.json"):
        found = _from_docker(archive)
    else:
        raise InvalidImage("this is not an image archive: it has neither index.json nor manifest.json")
    if not found:
        raise InvalidImage("the archive holds no image")
    if name:
        if len({image.manifest.digest for image in found}) > 1:
            raise InvalidRequest(f"the archive holds {len(found)} images: they cannot all be named {name}")
        found = [replace(found[0], name=name)]
    if not all(image.name for image in found):
        raise InvalidRequest("the archive does not name its image: give it a name")
    return [replace(image, name=normalise_reference(image.name)) for image in found]


def _from_layout(archive: Members, architecture: str) -> list[Found]:
    index = image_model.parse_document(archive.document("index.json"), "index.json")
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) > IMAGES_MAX:
        raise InvalidImage("index.json lists no images, or too many")
    entries = [entry for entry in entries if isinstance(entry, dict)]
    tags = _docker_tags(archive)
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(_name_in(entry), []).append(entry)
    found = []
    for name, group in groups.items():
        entry = image_model.choose_platform(group, architecture)
        image = _of_entry(archive, entry, architecture, INDEX_DEPTH_MAX)
        names = [name] if name else tags.get(image.manifest.config.digest, [""])
        found += [replace(image, name=each) for each in names]
    return found


def _name_in(entry: dict[str, Any]) -> str:
    annotations = entry.get("annotations") or {}
    names = [annotations.get(key) for key in NAME_ANNOTATIONS] if isinstance(annotations, dict) else []
    return next((name for name in names if isinstance(name, str) and name), "")


def _docker_tags(archive: Members) -> dict[str, list[str]]:
    """Configuration's digest -> names, from the manifest.json that Docker also puts in a layout."""
    if not archive.has("manifest.json"):
        return {}
    tags = {}
    for entry in _docker_entries(archive):
        names = [name for name in entry.get("RepoTags") or [] if isinstance(name, str)]
        if names:
            config = str(entry.get("Config", "")).rpartition("/")[2].removesuffix(".json")
            tags[f"sha256:{config}"] = names
    return tags


def _of_entry(archive: Members, entry: dict[str, Any], architecture: str, depth_left: int) -> Found:
    """Follows indexes within the index down to a manifest for this host."""
    blob = image_model.parse_blob(entry, "an entry of the index")
    data = _checked_document(archive, blob)
    document = image_model.parse_document(data, f"blob {blob.digest}")
    kind = document.get("mediaType") or blob.media_type
    if kind in image_model.INDEX_TYPES or "manifests" in document:
        if depth_left == 0:
            raise InvalidImage(f"the archive's indexes are nested deeper than {INDEX_DEPTH_MAX}")
        inner = [item for item in document.get("manifests") or [] if isinstance(item, dict)]
        chosen = image_model.choose_platform(inner, architecture)
        return _of_entry(archive, chosen, architecture, depth_left - 1)
    manifest = image_model.parse_manifest(data, blob.media_type)
    documents = {manifest.digest: data, manifest.config.digest: _checked_document(archive, manifest.config)}
    members = {layer.digest: _member(layer.digest) for layer in manifest.layers}
    return Found("", manifest, documents, members)


def _member(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _checked_document(archive: Members, blob: Blob) -> bytes:
    data = archive.document(_member(blob.digest))
    if len(data) != blob.size_bytes:
        raise InvalidImage(f"blob {blob.digest} has {len(data)} bytes instead of {blob.size_bytes}")
    if image_model.digest_of(data) != blob.digest:
        raise InvalidImage(f"blob {blob.digest} does not match its digest: the archive is damaged")
    return data


def _docker_entries(archive: Members) -> list[dict[str, Any]]:
    try:
        entries = json.loads(archive.document("manifest.json"))
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"manifest.json is not JSON: {error}") from None
    if not isinstance(entries, list) or len(entries) > IMAGES_MAX:
        raise InvalidImage("manifest.json is not a list of images, or too long")
    return [entry for entry in entries if isinstance(entry, dict)]


def _from_docker(archive: Members) -> list[Found]:
    """`docker save` names layers by path; a manifest is made for them, as containerd needs one."""
    found = []
    for entry in _docker_entries(archive):
        config_data = archive.document(str(entry.get("Config", "")))
        claimed = str(entry.get("Config", "")).rpartition("/")[2].removesuffix(".json")
        digest = image_model.digest_of(config_data)
        if len(claimed) == 64 and digest != f"sha256:{claimed}":
            raise InvalidImage(f"the configuration {claimed} does not match its digest: the archive is damaged")
        config = image_model.parse_config(config_data)
        paths = [str(path) for path in entry.get("Layers") or []]
        if len(paths) != len(config.diff_ids):
            raise InvalidImage(f"manifest.json has {len(paths)} layers, the image {len(config.diff_ids)}")
        layers = [_docker_layer(archive, path, diff_id) for path, diff_id in zip(paths, config.diff_ids, strict=True)]
        config_blob = Blob(digest, len(config_data), image_model.CONFIG_TYPE)
        data = _manifest_document(config_blob, layers)
        manifest = image_model.parse_manifest(data)
        documents = {manifest.digest: data, digest: config_data}
        members = {layer.digest: path for layer, path in zip(layers, paths, strict=True)}
        names = [name for name in entry.get("RepoTags") or [] if isinstance(name, str)] or [""]
        found += [Found(name, manifest, documents, members) for name in names]
    return found


def _docker_layer(archive: Members, path: str, diff_id: str) -> Blob:
    """A plain layer's digest is its diff id; a compressed one's is found by reading it."""
    part = archive.part(path)
    first = next(iter(archive.chunks(part)), b"")
    if not first.startswith(b"\x1f\x8b"):
        return Blob(diff_id, part.size_bytes, image_model.LAYER_TAR)
    digest = hashlib.sha256()
    for data in archive.chunks(part):
        digest.update(data)
    return Blob(f"sha256:{digest.hexdigest()}", part.size_bytes, f"{image_model.LAYER_TAR}+gzip")


def _manifest_document(config: Blob, layers: list[Blob]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": image_model.MANIFEST_TYPES[0],
        "config": _entry(config),
        "layers": [_entry(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _entry(blob: Blob) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size_bytes}
