"""Pulls an image: its name resolved to a digest, the manifest of this host's platform, and the blobs it lacks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from runtime import image_model
from runtime.errors import InvalidImage, NotFound, RuntimeFailure
from runtime.image_model import Blob, Manifest
from runtime.images import ImageStore
from runtime.model import LoadedImage
from runtime.registry.address import Source
from runtime.registry.client import Document, RegistryClient

log = logging.getLogger(__name__)

LAYERS_AT_ONCE_MAX = 4
INDEX_DEPTH_MAX = 4


@dataclass(frozen=True)
class Resolved:
    """What a name stood for when a registry was asked."""

    name: str
    digest: str  # that the registry has it by: of an index, or of the manifest itself
    manifest: Manifest
    documents: dict[str, bytes]  # digest -> manifest
    sources: tuple[Source, ...]  # that are asked for its blobs, in this order


@dataclass(frozen=True)
class Pulled:
    image: LoadedImage
    digest: str  # as Resolved.digest


# (layer, bytes that have come, whether the layer is here and verified)
OnProgress = Callable[[Blob, int, bool], None]


class Puller:
    """Connections to the registries of one pull; use as a context."""

    def __init__(self) -> None:
        self._clients: dict[str, RegistryClient] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Puller:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    async def digest_now(self, source: Source, reference: str) -> str:
        """What the registry says that a tag stands for; empty where it does not say."""
        client = await self._client(source)
        return await client.digest_of(source.repository, reference)

    async def resolve(self, name: str, reference: str, sources: Sequence[Source], architecture: str) -> Resolved:
        """Asks one source after the other. Raises RuntimeFailure: the last one's, which names the others'."""
        failures: list[RuntimeFailure] = []
        for number, source in enumerate(sources):
            try:
                resolved = await self._resolve(name, reference, source, architecture)
            except RuntimeFailure as error:
                failures.append(error)
                log.info("image %s is not had from %s: %s", name, source.words, error)
                continue
            # The mirrors that lack it are not asked again.
            left = tuple(sources[number:])
            return Resolved(name, resolved[0], resolved[1], resolved[2], left)
        raise _joined(failures)

    async def fetch(
        self, images: ImageStore, resolved: Resolved, on_progress: OnProgress, *, at_once: int = LAYERS_AT_ONCE_MAX
    ) -> Pulled:
        """Stores the image and unpacks it meanwhile. Raises RuntimeFailure; whole layers stay for a later try, for a
        while."""
        manifest = resolved.manifest
        blobs = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}

        def read(digest: str) -> AsyncGenerator[bytes, None]:
            if digest in resolved.documents:
                return _once(resolved.documents[digest])
            return self._blob(resolved.sources, blobs[digest], on_progress)

        loaded = await images.import_blobs(
            resolved.name,
            manifest.digest,
            read,
            layers_at_once=at_once,
            on_layer=lambda layer: on_progress(layer, layer.size_bytes, True),
            keep_part=True,
            unpack=True,
        )
        return Pulled(loaded, resolved.digest)

    async def _resolve(
        self, name: str, reference: str, source: Source, architecture: str
    ) -> tuple[str, Manifest, dict[str, bytes]]:
        client = await self._client(source)
        first = document = await client.manifest(source.repository, reference)
        for _ in range(INDEX_DEPTH_MAX):
            if not _is_index(document):
                manifest = image_model.parse_manifest(document.data, document.media_type)
                return first.digest, manifest, {manifest.digest: document.data}
            entries = image_model.parse_document(document.data, f"the index of {name}").get("manifests")
            offered = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
            entry = image_model.choose_platform(offered, architecture)
            blob = image_model.parse_blob(entry, f"an entry of the index of {name}")
            document = await client.manifest(source.repository, blob.digest)
        raise InvalidImage(f"the indexes of {name} are nested deeper than {INDEX_DEPTH_MAX}")

    async def _blob(
        self, sources: Sequence[Source], blob: Blob, on_progress: OnProgress
    ) -> AsyncGenerator[bytes, None]:
        """From the first source that has it; where one fails the next goes on."""
        offset = 0
        failures: list[RuntimeFailure] = []
        for source in sources:
            client = await self._client(source)
            try:
                async with contextlib.aclosing(client.blob(source.repository, blob, offset)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        on_progress(blob, offset, False)
                        yield chunk
                return
            except RuntimeFailure as error:
                failures.append(error)
        raise _joined(failures)

    async def _client(self, source: Source) -> RegistryClient:
        known = self._clients.get(source.endpoint.name)
        if known is None:
            known = await self._stack.enter_async_context(RegistryClient.opened(source.endpoint))
            self._clients[source.endpoint.name] = known
        return known


def _is_index(document: Document) -> bool:
    parsed = image_model.parse_document(document.data, "the manifest")
    kind = str(parsed.get("mediaType") or document.media_type)
    return kind in image_model.INDEX_TYPES or "manifests" in parsed


def _joined(failures: Sequence[RuntimeFailure]) -> RuntimeFailure:
    if not failures:
        return NotFound("no registry is known to ask")
    last = failures[-1]
    if len(failures) == 1:
        return last
    before = "; ".join(str(failure) for failure in failures[:-1])
    return type(last)(f"{last} (before that: {before})")


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data
