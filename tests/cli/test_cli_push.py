"""`image push`: archives, and images of a containerd, which is played here."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from cli.containerd_image import _ARCHITECTURES
from cli.failure import EXIT_FAILED
from proto import containerd_pb2 as api
from proto import control_pb2, objects_pb2
from tests.cli.control_server import ControlServer

Run = Callable[..., Any]
KIND = "application/vnd.oci.image."


class Containerd:
    """Answers Images/List and Content/Read in the namespace `default`."""

    def __init__(self, socket: Path) -> None:
        self.blobs: dict[str, bytes] = {}
        self.images: list[api.Image] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        read = grpc.unary_stream_rpc_method_handler(
            self._read,
            request_deserializer=api.ReadContentRequest.FromString,
            response_serializer=api.ReadContentResponse.SerializeToString,
        )
        names = grpc.unary_unary_rpc_method_handler(
            self._list,
            request_deserializer=api.ListImagesRequest.FromString,
            response_serializer=api.ListImagesResponse.SerializeToString,
        )
        for service, method, handler in (("content.v1.Content", "Read", read), ("images.v1.Images", "List", names)):
            generic = grpc.method_handlers_generic_handler(f"containerd.services.{service}", {method: handler})
            self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def add(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": f"{KIND}{kind}", "digest": digest, "size": len(data)}

    def image(self, name: str, architectures: tuple[str, ...]) -> None:
        """An index; only what is of this machine's platform is here in whole."""
        entries = []
        for architecture in architectures:
            config = self.add(json.dumps({"architecture": architecture}).encode(), "config.v1+json")
            layers = [self.add(f"{architecture} {number}".encode() * 1000, "layer.v1.tar") for number in range(2)]
            manifest = self.add(json.dumps({"config": config, "layers": layers}).encode(), "manifest.v1+json")
            entries.append({**manifest, "platform": {"os": "linux", "architecture": architecture}})
        index = self.add(json.dumps({"manifests": entries}).encode(), "index.v1+json")
        target = api.Descriptor(media_type=index["mediaType"], digest=index["digest"], size=index["size"])
        self.images.append(api.Image(name=name, target=target))

    def _list(self, _request: Any, context: Any) -> api.ListImagesResponse:
        inside = ("containerd-namespace", "default") in context.invocation_metadata()
        return api.ListImagesResponse(images=self.images if inside else [])

    def _read(self, request: api.ReadContentRequest, context: Any) -> Iterator[api.ReadContentResponse]:
        if request.digest not in self.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"content {request.digest}: not found")
        data = self.blobs[request.digest]
        for start in range(0, len(data), 700):
            yield api.ReadContentResponse(offset=start, data=data[start : start + 700])


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Containerd]:
    made = Containerd(tmp_path / "c.sock")
    yield made
    made.stop()


@pytest.fixture
def received(server: ControlServer) -> list[control_pb2.LoadImageRequest]:
    found: list[control_pb2.LoadImageRequest] = []

    def load(requests: Iterator[control_pb2.LoadImageRequest], _context: object) -> control_pb2.LoadImageReply:
        found.extend(requests)
        return control_pb2.LoadImageReply(images=[objects_pb2.Image(meta=objects_pb2.Meta(name=found[0].name))])

    server.on("LoadImage", load)
    return found


def test_an_image_of_containerd_is_sent_as_an_archive_of_this_platform(
    containerd: Containerd, received: list[control_pb2.LoadImageRequest], fairway: Run, tmp_path: Path
) -> None:
    here = next(name for machine, name in _ARCHITECTURES.items() if machine == platform.machine())
    containerd.image("docker.io/library/web:latest", ("s390x", here))
    ended = fairway("image", "push", "web", "--containerd", str(tmp_path / "c.sock"))
    assert ended.out.startswith("Loaded docker.io/library/web:latest")
    with tarfile.open(fileobj=io.BytesIO(b"".join(each.data for each in received))) as tar:
        files = {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}
    (top,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files[f"blobs/{top['digest'].replace(':', '/')}"])
    wanted = [top, manifest["config"], *manifest["layers"]]
    assert top["mediaType"] == f"{KIND}manifest.v1+json"
    for blob in wanted:
        assert files[f"blobs/{blob['digest'].replace(':', '/')}"] == containerd.blobs[blob["digest"]]
    assert len(files) == 2 + len(wanted), "what another platform needs is not sent"
    assert here.encode() in files[f"blobs/{manifest['config']['digest'].replace(':', '/')}"]


def test_an_archive_is_pushed_as_it_is_loaded(
    received: list[control_pb2.LoadImageRequest], fairway: Run, tmp_path: Path
) -> None:
    (tmp_path / "web.tar").write_bytes(b"archive")
    assert fairway("image", "push", str(tmp_path / "web.tar"), "--name", "web:2").out.startswith("Loaded web:2")
    assert [(each.data, each.name) for each in received] == [(b"archive", "web:2")]


def test_what_is_neither_a_file_nor_in_containerd_is_said(
    containerd: Containerd, received: list[control_pb2.LoadImageRequest], fairway: Run, tmp_path: Path
) -> None:
    socket = str(tmp_path / "c.sock")
    containerd.image("docker.io/library/web:1", ("s390x",))
    for arguments, words in (
        (("web:2",), "no image web:2 in the namespace default"),
        (("web:1", "-n", "k8s.io"), "no image web:1 in the namespace k8s.io"),
        (("web:1",), "the image is not for linux/"),
    ):
        ended = fairway("image", "push", *arguments, "--containerd", socket)
        assert ended.code == EXIT_FAILED
        assert words in ended.err
    containerd.blobs.clear()
    assert "in part only" in fairway("image", "push", "web:1", "--containerd", socket).err
    assert "no containerd at /nowhere" in fairway("image", "push", "web:1", "--containerd", "/nowhere").err
    assert received == []
