"""Images from Debian's docker-registry, filled by skopeo, into containerd."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from runtime.errors import AccessDenied, InvalidImage, NotFound, RuntimeFailure, Unavailable
from runtime.image_model import Blob, host_architecture
from runtime.model import RuntimeSettings
from runtime.registry.address import Endpoint, Source, parse_name
from runtime.registry.client import RegistryClient
from runtime.registry.pull import Pulled, Puller
from runtime.runtime import Runtime
from tests import registry_servers
from tests.registry_servers import (
    ON_LOOPBACK,
    PASSWORD,
    USER,
    Answer,
    Authority,
    FaultyWay,
    Registry,
    TokenServer,
    push,
    silent_address,
)
from tests.runtime import image_builder
from tests.runtime.conftest import drive, leaf, output_of, request_for

T = TypeVar("T")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with registry_servers.registry(folder, ON_LOOPBACK) as running:
        yield running


def unique_layers() -> list[bytes]:
    """Of an image that no earlier test has left a layer of: busybox, and a file that does not compress."""
    data = random.Random(next(_numbers)).randbytes(600_000)
    return [*image_builder.busybox_layers(), image_builder.layer({"unique": (data, 0o644)}, {}, {})]


def archive(folder: Path, *, zipped: bool = True, layers: Sequence[bytes] | None = None) -> Path:
    path = folder / f"image-{next(_numbers)}.tar"
    return image_builder.oci_layout(path, "", layers=list(layers or unique_layers()), zipped_layers=zipped)


def pull(
    settings: RuntimeSettings,
    sources: Sequence[Source],
    reference: str = "1",
    *,
    run: bool = False,
    kinds: set[str] | None = None,
) -> Pulled:
    """Pulls, unpacks and (with `run`) starts the image, and removes it again; `kinds` gets its layers' media types."""

    async def body(runtime: Runtime) -> Pulled:
        done: dict[str, int] = {}

        def note(layer: Blob, come_bytes: int, here: bool) -> None:
            assert come_bytes <= layer.size_bytes
            if here:
                done[layer.digest] = come_bytes

        async with Puller() as puller:
            resolved = await puller.resolve("example.com/app:1", reference, sources, host_architecture())
            pulled = await puller.fetch(runtime.images, resolved, note)
            if kinds is not None:
                kinds.update(layer.media_type for layer in resolved.manifest.layers)
        try:
            assert done == {layer.digest: layer.size_bytes for layer in resolved.manifest.layers}
            top = await runtime.images.top_snapshot(pulled.image.manifest_digest)
            assert await runtime.images._unpacker.has(top), "it was not unpacked while it came"
            assert await runtime.images.unpack(pulled.image.manifest_digest) == top
            if run:
                request = request_for(pulled.image, "sh", "-c", "wc -c </unique")
                assert await output_of(runtime, request) == (0, "600000")
        finally:
            await runtime.images.remove(pulled.image.manifest_digest)
        return pulled

    return alone(lambda: drive(settings, body))


def alone(call: Callable[[], T]) -> T:
    """Its failure without the groups around it."""
    try:
        return call()
    except ExceptionGroup as group:
        raise leaf(group) from None


def source(address: str, repository: str, **more: object) -> Source:
    return Source(Endpoint(address, **{"plain_http": True, **more}), repository)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("zipped", "options", "layers"),
    [
        (True, ("--format", "oci"), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (False, ("--dest-compress-format", "zstd"), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (False, ("--preserve-digests",), "application/vnd.oci.image.layer.v1.tar"),
        (True, ("--format", "v2s2"), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ],
)
def test_images_of_both_forms_and_all_compressions_are_pulled_and_run(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path, zipped: bool, options: Sequence[str], layers: str
) -> None:
    name = f"form-{next(_numbers)}"
    push(archive(tmp_path, zipped=zipped), f"{plain.address}/{name}:1", *options)
    kinds: set[str] = set()
    pulled = pull(settings, [source(plain.address, name)], run=True, kinds=kinds)
    assert kinds == {layers}
    assert pulled.digest == pulled.image.manifest_digest


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_the_manifest_of_this_hosts_platform_is_taken(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path, form: str
) -> None:
    name = f"two-{form}"
    push(_two_platforms(tmp_path), f"{plain.address}/{name}:1", "--all", "--format", form)
    kinds: set[str] = set()
    pulled = pull(settings, [source(plain.address, name)], run=True, kinds=kinds)
    assert all(("docker" in kind) == (form == "v2s2") for kind in kinds)
    assert pulled.image.architecture == host_architecture()
    assert pulled.digest != pulled.image.manifest_digest
    assert pull(settings, [source(plain.address, name)], pulled.digest).image == pulled.image  # by the index's digest


def test_an_image_for_other_platforms_only_is_refused_by_name(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    push(_two_platforms(tmp_path, ("arm", "s390x")), f"{plain.address}/foreign:1", "--all")
    with pytest.raises(
        RuntimeFailure, match=f"for linux/arm, linux/s390x; this host needs linux/{host_architecture()}"
    ):
        pull(settings, [source(plain.address, "foreign")])


def test_what_is_not_there_is_said(plain: Registry, settings: RuntimeSettings) -> None:
    with pytest.raises(NotFound, match=rf"registry {plain.address} has no nothing:1 \(manifest unknown"):
        pull(settings, [source(plain.address, "nothing")])
    with silent_address() as gone, pytest.raises(Unavailable, match=f"registry {gone} does not answer"):
        pull(settings, [source(gone, "nothing")])


def test_tls_with_an_own_ca(settings: RuntimeSettings, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "127.0.0.1")
    with registry_servers.registry(tmp_path / "r", ON_LOOPBACK, authority=authority) as running:
        address = running.address
        push(archive(tmp_path), f"{address}/app:1")
        trusting = source(address, "app", plain_http=False, authority_pem=authority.ca_file.read_text())
        pull(settings, [trusting], run=True)
        with pytest.raises(Unavailable, match=r"certificate that is not trusted .*: give the cluster its CA"):
            pull(settings, [source(address, "app", plain_http=False)])


def test_plain_http_where_tls_was_expected_is_said(plain: Registry, settings: RuntimeSettings) -> None:
    with pytest.raises(Unavailable, match=r"does not speak TLS: .* --insecure"):
        pull(settings, [source(plain.address, "app", plain_http=False)])


def test_basic_authentication(settings: RuntimeSettings, tmp_path: Path) -> None:
    with registry_servers.registry(tmp_path / "r", ON_LOOPBACK, basic=True) as running:
        address = running.address
        push(archive(tmp_path), f"{address}/app:1", "--dest-creds", f"{USER}:{PASSWORD}")
        pull(settings, [source(address, "app", user=USER, password=PASSWORD)], run=True)
        with pytest.raises(AccessDenied, match=f"does not let user {USER} read app:1"):
            pull(settings, [source(address, "app", user=USER, password="wrong")])
        with pytest.raises(AccessDenied, match=f"does not let strangers .*fairway registry login {address}"):
            pull(settings, [source(address, "app")])


def test_tokens(settings: RuntimeSettings, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "127.0.0.1")
    with (
        closing(TokenServer(authority)) as tokens,
        registry_servers.registry(
            tmp_path / "r", ON_LOOPBACK, token_realm=tokens.realm, token_authority=authority
        ) as running,
    ):
        address = running.address
        push(archive(tmp_path), f"{address}/team/app:1", "--dest-creds", f"{USER}:{PASSWORD}")
        tokens.given.clear()
        pull(settings, [source(address, "team/app", user=USER, password=PASSWORD)], run=True)
        assert tokens.given == ["repository:team/app:pull"], "one token does for manifest and all layers"
        with pytest.raises(AccessDenied, match="does not accept the user or password: `fairway registry login"):
            pull(settings, [source(address, "team/app", user=USER, password="wrong")])
        drive(settings, lambda _: _check(Endpoint(address, True, "", USER, PASSWORD)))


async def _check(endpoint: Endpoint) -> None:
    async with RegistryClient.opened(endpoint) as client:
        await client.check()


def test_a_download_that_breaks_off_goes_on_where_it_broke(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    def cut_first_three(answer: Answer, number: int) -> None:
        if len(answer.body) > 100_000 and number <= 5:
            answer.cut_at = 70_000

    push(archive(tmp_path), f"{plain.address}/cut:1")
    with closing(FaultyWay(plain.address, cut_first_three)) as way:
        pull(settings, [source(way.address, "cut")], run=True)
    assert any(each.startswith("bytes=") for each in way.ranges), "nothing was asked for from its middle"


def test_a_server_without_ranges_is_read_again_from_the_start(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    made = archive(tmp_path)
    whole: dict[str, bytes] = {}

    def without_ranges(answer: Answer, number: int) -> None:
        if answer.status == 200 and len(answer.body) > 100_000:
            whole[str(len(answer.body))] = answer.body
            answer.cut_at = 70_000
        elif answer.status == 206:
            answer.body = whole[answer.headers["Content-Range"].rpartition("/")[2]]
            answer.status = 200
            del answer.headers["Content-Range"], answer.headers["Content-Length"]

    push(made, f"{plain.address}/ranges:1")
    with closing(FaultyWay(plain.address, without_ranges)) as way:
        pull(settings, [source(way.address, "ranges")], run=True)


def test_damaged_bytes_are_fetched_again_and_never_kept(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    damaged: list[int] = []

    def flip(times: int, answer: Answer) -> None:
        if len(answer.body) > 100_000 and len(damaged) < times:
            damaged.append(1)
            answer.body = answer.body[:-600] + bytes([answer.body[-600] ^ 1]) + answer.body[-599:]

    push(archive(tmp_path), f"{plain.address}/flip:1")
    with closing(FaultyWay(plain.address, lambda answer, _: flip(1, answer))) as way:
        pull(settings, [source(way.address, "flip")], run=True)
    push(archive(tmp_path), f"{plain.address}/flips:1")
    with (
        closing(FaultyWay(plain.address, lambda answer, _: flip(1000, answer))) as way,
        pytest.raises(InvalidImage, match="does not match its digest"),
    ):
        pull(settings, [source(way.address, "flips")])
    pull(settings, [source(plain.address, "flips")], run=True)


def test_a_pull_that_failed_finds_its_whole_layers_again(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    made = archive(tmp_path)
    push(made, f"{plain.address}/later:1")
    broken = True

    def lose_the_largest(answer: Answer, number: int) -> None:
        if broken and len(answer.body) > 590_000:
            answer.status, answer.body, answer.headers = 500, b"", {}

    with closing(FaultyWay(plain.address, lose_the_largest)) as way:
        with pytest.raises(Unavailable, match="HTTP status 500"):
            pull(settings, [source(way.address, "later")])
        first = len(way.ranges)
        broken = False
        pull(settings, [source(way.address, "later")], run=True)
        assert len(way.ranges) - first < 4, "layers were fetched a second time"


def test_a_registry_that_asks_to_wait_is_given_the_time(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    def too_many(answer: Answer, number: int) -> None:
        if number == 1:
            answer.status, answer.body, answer.headers = 429, b"", {"Retry-After": "1"}

    push(archive(tmp_path), f"{plain.address}/slow:1")
    with closing(FaultyWay(plain.address, too_many)) as way:
        pull(settings, [source(way.address, "slow")])

    def for_hours(answer: Answer, number: int) -> None:
        answer.status, answer.headers = 429, {"Retry-After": "7200"}
        answer.body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}).encode()

    push(archive(tmp_path), f"{plain.address}/limit:1")
    with (
        closing(FaultyWay(plain.address, for_hours)) as way,
        pytest.raises(Unavailable, match=r"limits .*\(pull rate limit\): try again in 120 minutes"),
    ):
        pull(settings, [source(way.address, "limit")])


def test_mirrors_come_first_and_the_registry_goes_on_where_they_end(
    plain: Registry, settings: RuntimeSettings, tmp_path: Path
) -> None:
    push(archive(tmp_path), f"{plain.address}/mirrored:1")

    def no_blobs(answer: Answer, number: int) -> None:
        answer.status, answer.body, answer.headers = 404, b"", {}

    with silent_address() as silent, closing(FaultyWay(plain.address, no_blobs)) as way:
        gone = source(silent, "mirrored")
        pull(settings, [gone, source(way.address, "mirrored"), source(plain.address, "mirrored")], run=True)
        assert way.ranges


def test_names_are_taken_apart() -> None:
    digest = "sha256:" + hashlib.sha256(b"").hexdigest()
    for text, wanted in {
        "redis": ("docker.io", "library/redis", "latest"),
        "team/app:2": ("docker.io", "team/app", "2"),
        "localhost:5000/app": ("localhost:5000", "app", "latest"),
        f"example.com/a/b:3@{digest}": ("example.com", "a/b", digest),
    }.items():
        name = parse_name(text)
        assert (name.registry, name.repository, name.reference) == wanted
    assert Endpoint("docker.io").base_url == "https://registry-1.docker.io"
    assert Endpoint("[fd00::1]:5000", plain_http=True).base_url == "http://[fd00::1]:5000"


def _two_platforms(folder: Path, architectures: Sequence[str] = ()) -> Path:
    """An OCI archive whose one entry is an index of two platforms, the other one first."""
    layers = unique_layers()
    stored = {image_builder.sha256(data): data for data in layers}
    entries = []
    for architecture in architectures or ("s390x", host_architecture()):
        config = image_builder.config_document(layers, architecture, image_builder.default_settings())
        manifest = _document(
            "manifest.v1",
            config=_entry("config.v1+json", config),
            layers=[_entry("layer.v1.tar", each) for each in layers],
        )
        stored |= {image_builder.sha256(data): data for data in (config, manifest)}
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**_entry("manifest.v1+json", manifest), "platform": platform})
    index = _document("index.v1", manifests=entries)
    stored[image_builder.sha256(index)] = index
    top = json.dumps({"schemaVersion": 2, "manifests": [_entry("index.v1+json", index)]}).encode()
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": top}
    members |= {f"blobs/{digest.replace(':', '/')}": data for digest, data in stored.items()}
    return image_builder.write_tar(folder / f"two-{next(_numbers)}.tar", members)


def _entry(kind: str, data: bytes) -> dict[str, object]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": image_builder.sha256(data), "size": len(data)}


def _document(kind: str, **more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": f"application/vnd.oci.image.{kind}+json", **more}).encode()


def test_what_a_name_meant_before_stays_until_it_is_removed(settings: RuntimeSettings, tmp_path: Path) -> None:
    first, second = (image_builder.oci_layout(tmp_path / f"{n}.tar", "a/b:1", layers=unique_layers()) for n in "12")

    async def body(runtime: Runtime) -> None:
        (before,) = await runtime.images.load_archive(first)
        (after,) = await runtime.images.load_archive(second)
        assert before.manifest_digest != after.manifest_digest
        assert await runtime.images.has(before.manifest_digest), "collected while a task may be made of it"
        await runtime.images.unpack(before.manifest_digest)
        assert await runtime.images.remove(before.manifest_digest) == [f"docker.io/a/b@{before.manifest_digest}"]
        assert await runtime.images.remove(after.manifest_digest) == ["docker.io/a/b:1"]

    alone(lambda: drive(settings, body))
