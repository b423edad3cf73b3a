"""Image archives: the OCI layout and `docker save`, plain or gzip'd, read without unpacking them.

Nothing of an archive is ever written under a name that it chooses. Everything is checked before anything
is handed on: sizes, digests, platform. All here is blocking and runs in a thread.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runtime import archive_layouts, image_model
from runtime.errors import InvalidImage
from runtime.image_model import Blob

MEMBERS_MAX = 100_000
ARCHIVE_BYTES_MAX = 64 * 1024**3
LAYER_BYTES_MAX = 64 * 1024**3  # unpacked
CHUNK_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Part:
    """Where in the (uncompressed) archive a member's bytes are."""

    offset_bytes: int
    size_bytes: int


class Archive:
    """The members of an opened archive by their cleaned names."""

    def __init__(self, file: IO[bytes], parts: dict[str, Part]) -> None:
        self._file = file
        self._parts = parts

    def has(self, name: str) -> bool:
        return name in self._parts

    def part(self, name: str) -> Part:
        """Raises InvalidImage where the archive has no such member."""
        found = self._parts.get(posixpath.normpath(name))
        if found is None:
            raise InvalidImage(f"the archive lacks {name}; it is damaged or was not written completely")
        return found

    def document(self, name: str) -> bytes:
        """A small member as a whole."""
        part = self.part(name)
        if part.size_bytes > image_model.DOCUMENT_BYTES_MAX:
            raise InvalidImage(f"{name} has {part.size_bytes} bytes, more than a document may have")
        return b"".join(self.chunks(part))

    def chunks(self, part: Part) -> Iterator[bytes]:
        """Raises InvalidImage where the archive ends before the member does."""
        self._file.seek(part.offset_bytes)
        left = part.size_bytes
        while left > 0:
            data = self._file.read(min(CHUNK_BYTES, left))
            if not data:
                raise InvalidImage("the archive ends early: it is truncated")
            left -= len(data)
            yield data


@contextmanager
def opened(path: Path, work_folder: Path) -> Iterator[Archive]:
    """Opens an archive for reading by member; a gzip'd one is unpacked into a temporary file first.

    Raises InvalidImage where it is none, OSError on a full disk.
    """
    with path.open("rb") as raw, tempfile.TemporaryFile(dir=_made(work_folder)) as spare:
        file: IO[bytes] = raw
        if raw.read(2) == _GZIP_MAGIC:
            _decompress(path, spare)
            file = spare
        yield Archive(file, _index(file))


def check(archive: Archive, name: str | None, architecture: str) -> list[archive_layouts.Found]:
    """The images in the archive that this host can run, with every blob verified."""
    images = archive_layouts.images(archive, name, architecture)
    verified: dict[str, str] = {}
    for image in images:
        config = image_model.parse_config(image.documents[image.manifest.config.digest])
        image_model.check_platform(config, architecture)
        image_model.check_layers(image.manifest, config)
        for layer, diff_id in zip(image.manifest.layers, config.diff_ids, strict=True):
            if verified.get(layer.digest) != diff_id:
                verify_layer(archive, image.members[layer.digest], layer, diff_id)
                verified[layer.digest] = diff_id
    return images


def verify_layer(archive: Archive, member: str, layer: Blob, diff_id: str) -> None:
    """Compares size, digest and the digest of the unpacked tar; raises InvalidImage."""
    part = archive.part(member)
    if part.size_bytes != layer.size_bytes:
        raise InvalidImage(f"layer {layer.digest} has {part.size_bytes} bytes instead of {layer.size_bytes}")
    packed, unpacked = hashlib.sha256(), hashlib.sha256()
    unzip: Any = None
    zipped: bool | None = None
    unpacked_bytes = 0
    for data in archive.chunks(part):
        packed.update(data)
        if zipped is None:
            zipped = data.startswith(_GZIP_MAGIC)
            unzip = zlib.decompressobj(wbits=31) if zipped else None
        try:
            for piece in _unzipped(unzip, data):
                unpacked.update(piece)
                unpacked_bytes += len(piece)
        except zlib.error as error:
            raise InvalidImage(f"layer {layer.digest} cannot be unpacked: {error}") from None
        if unpacked_bytes > LAYER_BYTES_MAX:
            raise InvalidImage(f"layer {layer.digest} unpacks to more than {LAYER_BYTES_MAX} bytes")
    if f"sha256:{packed.hexdigest()}" != layer.digest:
        raise InvalidImage(f"layer {layer.digest} does not match its digest: the archive is damaged")
    # Other compressions (zstd) are verified by containerd, when it unpacks them.
    known = zipped or layer.media_type.endswith(".tar")
    if known and f"sha256:{unpacked.hexdigest()}" != diff_id:
        raise InvalidImage(f"layer {layer.digest} does not unpack to {diff_id}: the archive is damaged")


def _unzipped(unzip: Any, data: bytes) -> Iterator[bytes]:
    if unzip is None:
        yield data
        return
    while data:
        yield unzip.decompress(data, CHUNK_BYTES)
        data = unzip.unconsumed_tail


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _decompress(path: Path, target: IO[bytes]) -> None:
    try:
        with gzip.open(path, "rb") as source:
            while data := source.read(CHUNK_BYTES):
                target.write(data)
                if target.tell() > ARCHIVE_BYTES_MAX:
                    raise InvalidImage(f"the archive unpacks to more than {ARCHIVE_BYTES_MAX} bytes")
    except EOFError:
        raise InvalidImage("the archive ends early: it is truncated") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InvalidImage(f"the archive's compression is damaged: {error}") from None


def _index(file: IO[bytes]) -> dict[str, Part]:
    """Every regular file; links (as `docker save` makes them) stand for what they lead to."""
    file.seek(0)
    parts: dict[str, Part] = {}
    links: dict[str, str] = {}
    size_bytes = _size_bytes(file)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= MEMBERS_MAX:
                    raise InvalidImage(f"the archive has more than {MEMBERS_MAX} members")
                name = posixpath.normpath(member.name)
                if name.startswith(("/", "..")):
                    raise InvalidImage(f"the archive names a file outside of itself: {member.name}")
                if member.isreg():
                    if member.offset_data + member.size > size_bytes:
                        raise InvalidImage("the archive ends early: it is truncated")
                    parts[name] = Part(member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(f"{posixpath.dirname(name)}/{member.linkname}")
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
    except tarfile.TarError as error:
        raise InvalidImage(f"this is not an image archive, or it is truncated: {error}") from None
    for name, target in links.items():
        if target in parts:
            parts.setdefault(name, parts[target])
    return parts


def _size_bytes(file: IO[bytes]) -> int:
    size_bytes = file.seek(0, 2)
    file.seek(0)
    return size_bytes
