"""What becomes of images when they arrive, are named anew, removed or pruned, and which ones are pulled."""

from __future__ import annotations

import itertools

import pytest

from daemon.errors import Refused
from daemon.orchestration.image_lookup import find_image
from daemon.pulling import image_plan
from daemon.pulling.image_plan import Arrived
from daemon.pulling.wanted_plan import AGAIN_S_MAX, AGAIN_S_MIN, Try, next_due, wanted_images
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder
from runtime.model import LoadedImage
from tests.daemon.cluster_model import ClusterModel

REDIS = "docker.io/library/redis:7"


def digest(character: str) -> str:
    return "sha256:" + 64 * character


class Images:
    """A store, and images that come and go in it."""

    def __init__(self) -> None:
        self.model = ClusterModel()
        self._ids = itertools.count()
        for image in list(self.store.table(objects.Image)):
            self.commit(TransactionBuilder().delete(image))

    @property
    def store(self) -> Store:
        return self.model.store

    def new_id(self) -> str:
        return f"made-{next(self._ids)}"

    def commit(self, builder: TransactionBuilder) -> None:
        if len(builder):
            self.model.apply(builder)

    def arrive(self, name: str, character: str, index: str = "", pulled_unix_ms: int = 0) -> None:
        image = LoadedImage(name, digest(character), digest("f"), "amd64", "linux", 1000)
        arrived = Arrived(image, digest(index) if index else "", pulled_unix_ms)
        self.commit(image_plan.plan_arrival(self.store, [arrived], "node-1", self.new_id)[0])

    def serve(self, name: str, character: str = "", earlier: str = "") -> None:
        service = objects.Service(app="shop", image_digest=digest(character) if character else "")
        service.meta.id, service.meta.name, service.meta.format = self.new_id(), "web", 1
        service.meta.tenant = "default"
        service.spec.container.image = name
        if earlier:
            service.revisions.add(image_digest=digest(earlier))
        self.commit(TransactionBuilder().create(service))

    def names(self) -> dict[str, str]:
        return {image.meta.name: image.manifest_digest[7:8] for image in self.store.table(objects.Image)}

    def remove(self, text: str, force: bool = False) -> None:
        request = control.RemoveImageRequest(image=text, force=force)
        self.commit(image_plan.plan_removal(self.store, request)[0])

    def prune(self, plan_only: bool = False, unused_ms: int = 0) -> list[str]:
        request = control.PruneImagesRequest(plan_only=plan_only, unused_ms=unused_ms)
        builder, reply = image_plan.plan_prune(self.store, request, self.model.now_unix_ms + 1)
        self.commit(builder)
        return list(reply.removed)


@pytest.fixture
def images() -> Images:
    return Images()


def test_content_that_nothing_is_made_of_goes_when_its_name_gets_other_content(images: Images) -> None:
    images.arrive(REDIS, "a")
    images.arrive(REDIS, "b")
    assert images.names() == {REDIS: "b"}


@pytest.mark.parametrize("use", [{"character": "a"}, {"character": "c", "earlier": "a"}])
def test_content_of_a_service_or_its_earlier_revision_stays_by_its_digest(images: Images, use: dict[str, str]) -> None:
    images.arrive(REDIS, "a")
    images.serve("redis:7", **use)
    images.arrive(REDIS, "b")
    assert images.names() == {REDIS: "b", f"docker.io/library/redis@{digest('a')}": "a"}
    images.arrive(REDIS, "d")
    assert images.names() == {REDIS: "d", f"docker.io/library/redis@{digest('a')}": "a"}


def test_an_image_is_found_by_the_digest_of_its_index_too(images: Images) -> None:
    images.arrive(REDIS, "a", index="e")
    for text in ("redis:7", f"redis@{digest('a')}", f"redis@{digest('e')}"):
        found = find_image(images.store, text)
        assert found is not None and found.meta.name == REDIS
    assert find_image(images.store, f"redis@{digest('b')}") is None


def test_a_further_name_means_the_same_content_and_the_last_one_is_kept_from_removal(images: Images) -> None:
    images.arrive(REDIS, "a")
    images.serve("redis:7", "a")
    request = control.TagImageRequest(image="redis:7", name="cache:stable")
    builder, tagged = image_plan.plan_tag(images.store, request, images.new_id)
    images.commit(builder)
    assert tagged.meta.name == "docker.io/library/cache:stable"
    images.remove("redis:7")
    assert images.names() == {"docker.io/library/cache:stable": "a"}
    with pytest.raises(Refused, match="is used by shop/web"):
        images.remove("cache:stable")
    images.remove("cache:stable", force=True)
    assert images.names() == {}


def test_a_digest_cannot_be_given_as_a_name_and_an_ambiguous_beginning_is_refused(images: Images) -> None:
    images.arrive(REDIS, "a")
    images.arrive("docker.io/library/web:1", "b")
    for request, words in (
        (control.TagImageRequest(image="redis:7", name=f"x@{digest('a')}"), "is no tag"),
        (control.TagImageRequest(image="nothing", name="x"), "there is no image 'nothing'"),
    ):
        with pytest.raises(Refused, match=words):
            image_plan.plan_tag(images.store, request, images.new_id)
    assert image_plan.one_matching(images.store, "aaaa").meta.name == REDIS


def test_prune_leaves_what_services_are_made_of_or_name_and_what_came_just_now(images: Images) -> None:
    images.arrive(REDIS, "a")
    images.serve("redis:7", "b", earlier="c")
    images.arrive("docker.io/library/made:1", "b")
    images.arrive("docker.io/library/earlier:1", "c")
    images.arrive("docker.io/library/unused:1", "d")
    assert images.prune(unused_ms=60_000) == []
    assert images.prune(plan_only=True) == ["docker.io/library/unused:1"]
    assert images.prune() == ["docker.io/library/unused:1"]
    assert sorted(images.names().values()) == ["a", "b", "c"]


def test_what_services_lack_is_pulled_unless_they_say_never(images: Images) -> None:
    images.serve("redis:7")
    assert wanted_images(images.store) == ["redis:7"]
    images.arrive(REDIS, "a")
    assert wanted_images(images.store) == []


def test_an_image_that_does_not_come_is_asked_for_ever_more_rarely() -> None:
    tries: dict[str, Try] = {}
    assert next_due(["a", "b"], tries, 0.0) == ("a", 0.0)
    tries["a"] = Try.after(None, 0.0, "no")
    assert next_due(["a", "b"], tries, 1.0) == ("b", 0.0)
    assert next_due(["a"], tries, 1.0) == (None, AGAIN_S_MIN - 1.0)
    assert next_due(["a"], tries, AGAIN_S_MIN) == ("a", 0.0)
    for _ in range(20):
        tries["a"] = Try.after(tries["a"], 0.0, "no")
    assert tries["a"].wait_s == AGAIN_S_MAX
