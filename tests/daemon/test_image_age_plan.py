"""Images leave the cluster when nothing has used them for long, or where disks are full: only what a registry has."""

from __future__ import annotations

from daemon.garbage.garbage_plan import CONDITION
from daemon.garbage.image_age_plan import DAY_MS, PRESSURE_UNUSED_MS_MIN, plan_image_ages
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.test_image_plan import Images, digest

DAY = 1_000 * DAY_MS


def look(images: Images, now_unix_ms: int, keep_days: int = 30) -> list[str]:
    builder, leaving = plan_image_ages(images.store, now_unix_ms, keep_days)
    images.commit(builder)
    return [image.name for image in leaving]


def image(images: Images, name: str) -> objects.Image:
    found = images.store.table(objects.Image).unique("name", name)
    assert found is not None
    return found


def full(images: Images, is_full: bool = True) -> None:
    for known in list(images.store.table(objects.Node))[:1]:
        node = objects.Node()
        node.CopyFrom(known)
        del node.conditions[:]
        if is_full:
            node.conditions.add(kind=CONDITION, message="full")
        images.commit(TransactionBuilder().update(node))


def test_unused_pulled_images_leave_after_their_time_and_loaded_ones_never() -> None:
    images = Images()
    images.arrive("pulled:1", "a", pulled_unix_ms=DAY)
    images.arrive("loaded:1", "b")
    assert look(images, DAY) == []
    assert image(images, "pulled:1").unused_since_unix_ms == DAY
    assert look(images, DAY + 29 * DAY_MS) == []
    assert len(plan_image_ages(images.store, DAY + 29 * DAY_MS, 30)[0]) == 0  # nothing is written twice
    assert look(images, DAY + 30 * DAY_MS, keep_days=0) == []
    assert look(images, DAY + 30 * DAY_MS) == ["pulled:1"]
    assert look(images, DAY + 90 * DAY_MS) == []


def test_what_is_used_meanwhile_begins_anew() -> None:
    images = Images()
    images.arrive("pulled:1", "a", pulled_unix_ms=DAY)
    look(images, DAY)
    task = objects.Task(image_digest=digest("a"), address="10.0.0.1")
    task.meta.id = task.meta.name = "t1"
    task.meta.format = 1
    task.status.state = objects.TASK_STATE_RUNNING
    images.commit(TransactionBuilder().create(task))
    assert look(images, DAY + 40 * DAY_MS) == []
    assert image(images, "pulled:1").unused_since_unix_ms == 0
    ended = objects.Task()
    ended.CopyFrom(next(iter(images.store.table(objects.Task))))
    ended.address, ended.status.state = "", objects.TASK_STATE_EXITED
    ended.status.finished_unix_ms = DAY + 41 * DAY_MS
    images.commit(TransactionBuilder().update(ended))
    assert look(images, DAY + 60 * DAY_MS) == []
    assert look(images, DAY + 89 * DAY_MS) == []
    assert look(images, DAY + 91 * DAY_MS) == ["pulled:1"]


def test_a_full_disk_takes_the_longest_unused_one_after_the_other() -> None:
    images = Images()
    node_id = next(iter(images.store.table(objects.Node))).meta.id
    for number, (name, character) in enumerate((("new:1", "a"), ("old:1", "b"), ("elsewhere:1", "c"))):
        images.arrive(name, character, pulled_unix_ms=DAY - number * DAY_MS)
        held = objects.Image()
        held.CopyFrom(image(images, name))
        held.node_ids[:] = ["another"] if name == "elsewhere:1" else [node_id]
        held.unused_since_unix_ms = held.pulled_unix_ms
        images.commit(TransactionBuilder().update(held))
    assert look(images, DAY + PRESSURE_UNUSED_MS_MIN) == []
    full(images)
    assert look(images, DAY + PRESSURE_UNUSED_MS_MIN - 1) == ["old:1"]
    assert look(images, DAY + PRESSURE_UNUSED_MS_MIN - 1) == []  # too young
    assert look(images, DAY + PRESSURE_UNUSED_MS_MIN) == ["new:1"]
    full(images, is_full=False)
    assert look(images, DAY + 2 * PRESSURE_UNUSED_MS_MIN) == []
