"""An image of a containerd on this machine as an OCI archive, made while it is sent.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md; of an index the manifest of this machine's
platform is taken.
"""

from __future__ import annotations

import json
import os
import platform
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from cli.failure import CommandFailed
from proto import containerd_pb2 as api

CALL_SECONDS_MAX = 30.0
READ_SECONDS_MAX = 3600.0
MESSAGE_BYTES_MAX = 16 << 20
DOCUMENT_BYTES_MAX = 4 << 20
INDEX_DEPTH_MAX = 4
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class ContainerdImage:
    """Use as a context. `name` is the image's whole name; raises CommandFailed where there is none of it."""

    def __init__(self, text: str, socket: str, namespace: str) -> None:
        self._asked = f"push {text}"
        self._socket = socket
        self._metadata = (("containerd-namespace", namespace),)
        if not Path(socket).exists():
            raise CommandFailed(self._asked, f"there is no such file, and no containerd at {socket}")
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=options)
        try:
            found = self._found(text, namespace)
        except BaseException:
            self._channel.close()
            raise
        self.name = found.name
        self._target = found.target

    def __enter__(self) -> ContainerdImage:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def archive(self) -> Iterator[bytes]:
        """The archive's bytes, in pieces."""
        digest, size, kind = self._target.digest, self._target.size, self._target.media_type
        document = self._document(digest)
        for _ in range(INDEX_DEPTH_MAX):
            if "manifests" not in document:
                break
            entry = self._of_platform(document["manifests"])
            digest, size, kind = str(entry["digest"]), int(entry["size"]), str(entry.get("mediaType", ""))
            document = self._document(digest)
        top = {"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": digest, "size": size}]}
        yield from _member("oci-layout", _LAYOUT)
        yield from _member("index.json", json.dumps(top).encode())
        blobs = {digest: size}
        for blob in (document["config"], *document.get("layers", ())):
            blobs[str(blob["digest"])] = int(blob["size"])
        for each, size_bytes in blobs.items():
            yield _header(f"blobs/{each.replace(':', '/')}", size_bytes)
            yield from self._read(each)
            yield bytes(-size_bytes % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _found(self, text: str, namespace: str) -> api.Image:
        method = self._channel.unary_unary(
            "/containerd.services.images.v1.Images/List",
            request_serializer=api.ListImagesRequest.SerializeToString,
            response_deserializer=api.ListImagesResponse.FromString,
        )
        try:
            reply = method(api.ListImagesRequest(), metadata=self._metadata, timeout=CALL_SECONDS_MAX)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        names = _whole_names(text)
        for image in reply.images:
            if image.name in names:
                found: api.Image = image
                return found
        raise CommandFailed(
            self._asked,
            f"there is no file {text}, and no image {text} in the namespace {namespace} of the containerd at "
            f"{self._socket}; `ctr -n {namespace} images ls` lists them, and --namespace names another",
        )

    def _of_platform(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
        for entry in entries:
            its = entry.get("platform") or {}
            if its.get("os", "linux") == "linux" and its.get("architecture", wanted) == wanted:
                return entry
        raise CommandFailed(self._asked, f"the image is not for linux/{wanted}, which this machine is")

    def _document(self, digest: str) -> dict[str, Any]:
        data = b""
        for chunk in self._read(digest):
            data += chunk
            if len(data) > DOCUMENT_BYTES_MAX:
                raise CommandFailed(self._asked, f"{digest} is larger than a manifest may be")
        document: dict[str, Any] = json.loads(data)
        return document

    def _read(self, digest: str) -> Iterator[bytes]:
        method = self._channel.unary_stream(
            "/containerd.services.content.v1.Content/Read",
            request_serializer=api.ReadContentRequest.SerializeToString,
            response_deserializer=api.ReadContentResponse.FromString,
        )
        request = api.ReadContentRequest(digest=digest)
        try:
            for reply in method(request, metadata=self._metadata, timeout=READ_SECONDS_MAX):
                yield reply.data
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def _failure(self, error: Any) -> CommandFailed:
        words = error.details() or error.code().name
        if error.code() is grpc.StatusCode.NOT_FOUND:
            words += ": containerd has the image in part only; pull it there for this platform"
        elif os.geteuid() != 0:
            words += " (containerd answers root)"
        return CommandFailed(self._asked, f"containerd at {self._socket}: {words}")


def _whole_names(text: str) -> set[str]:
    """What a short name may stand for, by Docker's rules."""
    if "@" not in text and ":" not in text.rpartition("/")[2]:
        text += ":latest"
    return {text, f"docker.io/{text}", f"docker.io/library/{text}"}


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data))
    yield data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    return entry.tobuf(tarfile.PAX_FORMAT)
