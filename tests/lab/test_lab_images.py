"""Image archives are correct OCI layouts, the same bytes each time, and hold programs that run."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import images
from lab.cluster import Lab
from lab.layout import LabError
from lab.oci_archive import ImageSettings, RootFilesystem, archive
from tests.lab.lab_fixtures import mechanical_lab, wait_until


def _small_root() -> RootFilesystem:
    root = RootFilesystem()
    root.add_text("etc/motd", "hello\n")
    root.add_text("/usr/bin/run", "#!/bin/sh\n", 0o755)
    root.links["bin"] = "usr/bin"
    root.folders["tmp"] = 0o1777
    return root


def _blob(tar: tarfile.TarFile, digest: str) -> bytes:
    file = tar.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))
    assert file is not None
    return file.read()


def _load(tar: tarfile.TarFile, descriptor: dict[str, Any]) -> bytes:
    content = _blob(tar, descriptor["digest"])
    assert len(content) == descriptor["size"]
    assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
    return content


def test_the_same_input_gives_the_same_bytes() -> None:
    settings = ImageSettings("x:1", ("run",))
    assert archive(settings, _small_root()) == archive(settings, _small_root())


def test_every_digest_and_size_of_an_archive_is_right() -> None:
    data = archive(ImageSettings("x:1", ("run",), exposed=("80/tcp",)), _small_root())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        layout = tar.extractfile("oci-layout")
        index_file = tar.extractfile("index.json")
        assert layout is not None and index_file is not None
        assert json.load(layout) == {"imageLayoutVersion": "1.0.0"}
        manifest_descriptor = json.load(index_file)["manifests"][0]
        assert manifest_descriptor["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
        manifest = json.loads(_load(tar, manifest_descriptor))
        config = json.loads(_load(tar, manifest["config"]))
        layer = _load(tar, manifest["layers"][0])
        assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
        assert config["config"]["Cmd"] == ["run"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert files.getmember("tmp").mode == 0o1777
        assert files.getmember("usr/bin/run").mode == 0o755
        assert files.getmember("bin").linkname == "usr/bin"
        assert all(member.uid == 0 and member.mtime == 0 for member in files)


def test_a_root_filesystem_can_be_a_folder(tmp_path: Path) -> None:
    _small_root().write_to(tmp_path)
    assert (tmp_path / "bin/run").read_text() == "#!/bin/sh\n"


def test_an_unknown_image_is_refused_with_those_there_are() -> None:
    with pytest.raises(LabError, match="busybox"):
        images.build("no-such")


def test_a_second_build_is_the_cached_file() -> None:
    path = images.build("busybox")
    assert images.build("busybox") == path
    assert path.stat().st_mtime_ns == images.build("busybox").stat().st_mtime_ns


_SERVE_AND_ASK = (
    "python3 /srv/web_server.py api & for n in $(seq 300); do"
    " wget -qO- 127.0.0.1:8000/healthz 2>/dev/null && exit; sleep 0.1; done; exit 1"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with mechanical_lab(tmp_path_factory.mktemp("images"), 1) as made:
        wait_until(
            lambda: made.run_in("host-1", ["ctr", "version"], check=False).returncode == 0,
            "containerd answers",
        )
        yield made


@pytest.mark.parametrize(
    ("image", "command", "expected"),
    [
        ("redis", ["redis-server", "--version"], "Redis server v="),
        ("redis", ["redis-cli", "--version"], "redis-cli"),
        ("shop-web", ["python3", "-c", "import http.server, http.client, json; print(1 + 1)"], "2"),
        (
            "shop-api",
            ["sh", "-c", _SERVE_AND_ASK],
            "ok",
        ),
    ],
)
def test_the_programs_of_an_image_run_in_containerd(lab: Lab, image: str, command: list[str], expected: str) -> None:
    with images.build(image).open("rb") as data:
        lab.run_in("host-1", ["ctr", "image", "import", "-"], stdin=data)
    name = images.RECIPES[image].settings.name
    cgroup = f"/fairway-lab-{lab.name}/host-1/once"
    done = lab.run_in(
        "host-1",
        [
            "ctr",
            "run",
            "--rm",
            "--net-host",
            "--cgroup",
            cgroup,
            f"docker.io/library/{name}",
            "once",
            *command,
        ],
    )
    assert expected in done.stdout
