"""Archives that are right are loaded; all others are refused with the cause, and leave nothing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from runtime import errors
from runtime.content_files import SIZE_BYTES_MIN, ContentFiles
from runtime.image_model import OCI, host_architecture
from runtime.model import RuntimeSettings
from runtime.references import normalise_reference
from runtime.runtime import Runtime
from tests.runtime import image_builder
from tests.runtime.conftest import drive

# Not the layers of the session's image, which stays.
LAYERS = [*image_builder.busybox_layers(), image_builder.layer({"own": (b"1", 0o644)}, {}, {})]
BUILDERS = {
    "layout": lambda path: image_builder.oci_layout(path, "redis", layers=LAYERS),
    "layout with zipped layers": lambda path: image_builder.oci_layout(
        path, "redis", layers=LAYERS, zipped_layers=True
    ),
    "docker": lambda path: image_builder.docker_save(path, "redis", layers=LAYERS),
    "zipped layout": lambda path: image_builder.zipped(image_builder.oci_layout(path, "redis", layers=LAYERS)),
    "zipped docker": lambda path: image_builder.zipped(image_builder.docker_save(path, "redis", layers=LAYERS)),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_archive_is_loaded_and_unpacked(settings: RuntimeSettings, tmp_path: Path, kind: str) -> None:
    path = BUILDERS[kind](tmp_path / "image.tar")

    async def body(runtime: Runtime) -> None:
        loaded = await runtime.images.load_archive(path)
        assert [image.name for image in loaded] == ["docker.io/library/redis:latest"]
        digest = loaded[0].manifest_digest
        assert await runtime.images.unpack(digest) == await runtime.images.unpack(digest)
        config = await runtime.images.config(digest)
        assert config.volumes == ("/data",)
        assert config.stop_signal == "SIGKILL"
        assert await runtime.images.has(digest)
        assert await runtime.images.remove("redis") == ["docker.io/library/redis:latest"]
        assert not await runtime.images.has(digest)

    drive(settings, body)


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def foreign() -> str:
    return "arm64" if host_architecture() == "amd64" else "amd64"


Build = Callable[[Path], Path]
BAD: dict[str, tuple[Build, type[errors.RuntimeFailure], str]] = {
    "truncated": (
        lambda path: truncated(image_builder.oci_layout(path)),
        errors.InvalidImage,
        "truncated|lacks",
    ),
    "truncated zip": (
        lambda path: truncated(image_builder.zipped(image_builder.oci_layout(path))),
        errors.InvalidImage,
        "truncated",
    ),
    "digest": (lambda path: image_builder.oci_layout(path, damage="layer"), errors.InvalidImage, "digest"),
    "size": (lambda path: image_builder.oci_layout(path, damage="size"), errors.InvalidImage, "instead of"),
    "lacking": (lambda path: image_builder.oci_layout(path, damage="lacking"), errors.InvalidImage, "lacks"),
    "docker digest": (
        lambda path: image_builder.docker_save(path, damage="layer"),
        errors.InvalidImage,
        "digest|damaged",
    ),
    "architecture": (
        lambda path: image_builder.oci_layout(path, architecture=foreign()),
        errors.WrongArchitecture,
        "this host needs",
    ),
    "nameless": (lambda path: image_builder.oci_layout(path, ""), errors.InvalidRequest, "name"),
    "no archive": (
        lambda path: image_builder.write_tar(path, {"hello": b"x"}),
        errors.InvalidImage,
        "not an image archive",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_is_refused(settings: RuntimeSettings, tmp_path: Path, kind: str) -> None:
    build, failure, words = BAD[kind]
    path = build(tmp_path / "bad.tar")

    async def body(runtime: Runtime) -> None:
        before = await runtime.images.list()
        with pytest.raises(failure, match=words):
            await runtime.images.load_archive(path)
        assert await runtime.images.list() == before
        assert not list((settings.run_folder / "work").iterdir())

    drive(settings, body)


@pytest.mark.parametrize("by_files", [True, False])
def test_an_image_travels_blob_by_blob(
    settings: RuntimeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_files: bool
) -> None:
    used: list[bool] = []
    for name in ("opened", "begun"):
        plain = getattr(ContentFiles, name)

        async def found(files: ContentFiles, what: str, plain: Any = plain) -> BinaryIO | None:
            file: BinaryIO | None = await plain(files, what) if by_files else None
            used.append(file is not None)
            return file

        monkeypatch.setattr(ContentFiles, name, found)
    new = {"new": (os.urandom(SIZE_BYTES_MIN), 0o644)}
    layers = [*image_builder.busybox_layers(), image_builder.layer(new, {}, {})]
    path = image_builder.oci_layout(tmp_path / "image.tar", "far", layers=layers)

    async def body(runtime: Runtime) -> None:
        image = (await runtime.images.load_archive(path))[0]
        blobs: dict[str, bytes] = {}

        async def keep(digest: str) -> None:
            blobs[digest] = b"".join([chunk async for chunk in runtime.images.read_blob(digest)])

        for digest in (image.manifest_digest, image.config_digest, *map(image_builder.sha256, layers)):
            await keep(digest)
        await runtime.images.remove(image.manifest_digest)

        async def fetch(digest: str) -> AsyncIterator[bytes]:
            yield blobs[digest][:10]
            yield blobs[digest][10:]

        async def lie(digest: str) -> AsyncIterator[bytes]:
            yield b"x" * len(blobs[digest])

        with pytest.raises(errors.InvalidImage):
            await runtime.images.import_blobs("far", image.manifest_digest, lie)
        assert await runtime.images.import_blobs("far", image.manifest_digest, fetch) == image
        await runtime.images.unpack(image.manifest_digest)
        middle = [chunk async for chunk in runtime.images.read_blob(image_builder.sha256(layers[-1]), 1000)]
        assert b"".join(middle) == layers[-1][1000:]
        await runtime.images.remove("far")

    drive(settings, body)
    assert any(used) == by_files


def test_a_source_that_fails_half_way_leaves_nothing(settings: RuntimeSettings, tmp_path: Path) -> None:
    noise = image_builder.layer({"noise": (os.urandom(3 << 20), 0o644)}, {}, {})
    path = image_builder.oci_layout(tmp_path / "image.tar", "half", layers=[noise])

    async def body(runtime: Runtime) -> None:
        image = (await runtime.images.load_archive(path))[0]
        layer_digest = image_builder.sha256(noise)
        blobs = {digest: await whole(runtime, digest) for digest in (image.manifest_digest, image.config_digest)}
        await runtime.images.remove("half")

        async def fetch(digest: str) -> AsyncIterator[bytes]:
            yield blobs.get(digest, noise[: 2 << 20])
            if digest not in blobs:
                raise ConnectionError("its host went away")

        with pytest.raises(ConnectionError, match="went away"):
            await runtime.images.import_blobs("half", image.manifest_digest, fetch)
        for digest in (layer_digest, *blobs):
            with pytest.raises(errors.NotFound):
                await whole(runtime, digest)

    drive(settings, body)


async def whole(runtime: Runtime, digest: str) -> bytes:
    return b"".join([chunk async for chunk in runtime.images.read_blob(digest)])


def test_an_index_is_no_image_of_one_platform(settings: RuntimeSettings) -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": []}).encode()

    async def fetch(_: str) -> AsyncIterator[bytes]:
        yield index

    async def body(runtime: Runtime) -> None:
        with pytest.raises(errors.InvalidImage, match="several platforms"):
            await runtime.images.import_blobs("index", image_builder.sha256(index), fetch)

    drive(settings, body)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("example.org:5000/a/b:c", "example.org:5000/a/b:c"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, name: str) -> None:
    assert normalise_reference(text) == name
    assert normalise_reference(name) == name


@pytest.mark.parametrize("text", ["", "Redis", "a b", "redis:", "redis@sha256:1", "/x", "a//b"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        normalise_reference(text)
