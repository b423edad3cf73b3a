"""What goes from a host's disks: never what is needed, enough or it says so, the longest unused first."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.garbage import garbage_plan, items_plan
from daemon.garbage.garbage_plan import ORDER, PRESSURE_UNUSED_MS_MIN, FileSystem, GarbagePlan, Item
from daemon.garbage.items_plan import DAY_MS, Folder
from proto import objects_pb2 as objects
from runtime.image_space import HeldImage, ImageSpace
from storage.volumes import LocalVolume

NOW = 100 * DAY_MS
HIGH, LOW = 85, 75
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


@st.composite
def item_lists(draw: st.DrawFn) -> list[Item]:
    shared = st.dictionaries(st.sampled_from([f"part-{n}" for n in range(12)]), st.just(7), max_size=4)
    return [
        Item(
            kind=draw(st.sampled_from(ORDER)),
            id=f"i{number}",
            name=f"item {number}",
            file_system=draw(st.integers(1, 2)),
            parts=draw(shared),
            needed_by=draw(st.sampled_from(["", "", "a task"])),
            unused_unix_ms=NOW - draw(st.sampled_from([0, 5_000, 20_000, 3_600_000, DAY_MS, 40 * DAY_MS])),
            keep_ms=draw(st.sampled_from([None, None, DAY_MS])),
            by_hand=draw(st.booleans()),
            by_pressure=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 14)))
    ]


def systems(used: int, whole: int = 100) -> list[FileSystem]:
    return [FileSystem(number, f"/{number}", ("images",), used, whole) for number in (1, 2)]


def left(items: list[Item], planned: GarbagePlan, file_system: int) -> int:
    gone = {(each.item.kind, each.item.id) for each in planned.going}
    staying = [item for item in items if item.file_system == file_system and (item.kind, item.id) not in gone]
    return sum({part: size for item in staying for part, size in item.parts.items()}.values())


@PATIENT
@given(item_lists(), st.integers(0, 100), st.sets(st.sampled_from(ORDER)))
def test_it_never_takes_what_is_needed_and_says_what_it_is_short_of(
    items: list[Item], others: int, asked: set[str]
) -> None:
    before = {number: left(items, GarbagePlan([]), number) for number in (1, 2)}
    file_systems = [FileSystem(n, f"/{n}", (), before[n] + others, before[n] + 100) for n in (1, 2)]
    planned = garbage_plan.plan(file_systems, items, NOW, HIGH, LOW, asked)
    assert not any(each.item.needed_by for each in planned.going)
    assert len({(each.item.kind, each.item.id) for each in planned.going}) == len(planned.going)
    for system in file_systems:
        freed = sum(each.frees_bytes for each in planned.going if each.item.file_system == system.id)
        assert freed == before[system.id] - left(items, planned, system.id)
        target = system.size_bytes * LOW // 100
        if system.used_percent >= HIGH:
            assert system.used_bytes - freed <= target + planned.short_bytes.get(system.id, 0)
            if system.id in planned.short_bytes:
                gone = {each.item.id for each in planned.going}
                needed = {p for each in items if each.needed_by and each.file_system == system.id for p in each.parts}
                for item in items:
                    young = NOW - item.unused_unix_ms < PRESSURE_UNUSED_MS_MIN
                    mine = item.file_system == system.id and item.id not in gone
                    useless = needed.issuperset(item.parts)
                    assert not mine or item.needed_by or young or useless or not item.by_pressure
        else:
            assert not any(each.why == "disk" and each.item.file_system == system.id for each in planned.going)


@PATIENT
@given(item_lists())
def test_pressure_takes_the_longest_unused_first_and_stops_at_the_low_watermark(items: list[Item]) -> None:
    planned = garbage_plan.plan(systems(90), items, NOW, HIGH, LOW)
    for number in (1, 2):
        taken = [each for each in planned.going if each.why == "disk" and each.item.file_system == number]
        ages = [each.item.unused_unix_ms for each in taken]
        assert ages == sorted(ages)
        if taken:
            others = sum(each.frees_bytes for each in planned.going if each.item.file_system == number)
            assert others - taken[-1].frees_bytes < 15  # without the last it was not enough


def item(kind: str, name: str, unused_ms: int = DAY_MS, needed_by: str = "", **parts: int) -> Item:
    return Item(kind, name, name, 1, parts or {name: 10}, needed_by, NOW - unused_ms)


def names(planned: GarbagePlan) -> list[str]:
    return [each.item.id for each in planned.going]


def test_nothing_goes_while_there_is_room() -> None:
    items = [item("image", "a"), item("log", "b")]
    assert names(garbage_plan.plan(systems(84), items, NOW, HIGH, LOW)) == []


def test_what_is_shared_with_what_is_needed_frees_nothing() -> None:
    items = [
        item("image", "old", 9 * DAY_MS, base=50),
        item("image", "new", DAY_MS, base=50, own=20),
        item("image", "runs", 0, "a task", base=50),
    ]
    planned = garbage_plan.plan(systems(90), items, NOW, HIGH, LOW)
    assert [(each.item.id, each.frees_bytes) for each in planned.going] == [("new", 20)]
    assert not planned.short_bytes.get(1)


def test_what_holds_the_disk_is_said() -> None:
    items = [item("image", "runs", 0, "tasks here need them", base=50), item("log", "l", 0, "their tasks run", l=3)]
    planned = garbage_plan.plan(systems(90), items, NOW, HIGH, LOW)
    assert planned.short_bytes[1] == 15
    assert garbage_plan.what_holds(items, 1) == "images: tasks here need them; logs: their tasks run"


def test_an_inode_shortage_counts_as_well() -> None:
    full = FileSystem(1, "/1", (), 10, 100, inodes_used=90, inodes=100)
    planned = garbage_plan.plan([full], [item("log", "a"), item("log", "b")], NOW, HIGH, LOW)
    assert names(planned) == ["a", "b"]


def space(**images: tuple[dict[str, int], dict[str, int]]) -> ImageSpace:
    held = [HeldImage(name, (f"{name}:1",), blobs, layers, NOW - DAY_MS) for name, (blobs, layers) in images.items()]
    return ImageSpace(held, {}, 0, {}, False, ())


def test_images_that_tasks_need_stay_and_others_go_where_two_hosts_keep_them() -> None:
    seen = space(web=({"b1": 5}, {"s1": 9}), old=({"b2": 5}, {"s2": 9}), lone=({"b3": 5}, {"s3": 9}))
    items = items_plan.image_items(seen, 1, {"web"}, {"web", "old"}, {}, sure=True)
    free = [(each.kind, each.id) for each in items if not each.needed_by]
    assert free == [("image", "old"), ("unpacked", "old"), ("unpacked", "lone")]
    assert all(each.needed_by for each in items_plan.image_items(seen, 1, set(), {"web"}, {}, sure=False))


def test_layers_below_containers_and_those_of_a_pull_in_progress_stay() -> None:
    seen = ImageSpace([], {"loose": 5}, NOW - DAY_MS, {"below": 7}, True, ())
    assert all(each.needed_by for each in items_plan.image_items(seen, 1, (), (), {}, sure=True))
    seen = ImageSpace([], {"loose": 5}, NOW - DAY_MS, {}, False, ("fairway-1",))
    planned = garbage_plan.plan(systems(10), items_plan.image_items(seen, 1, (), (), {}, True), NOW, HIGH, LOW)
    assert [(each.item.kind, each.why) for each in planned.going] == [("partial", "age")]


@PATIENT
@given(st.sets(st.sampled_from("abcdef"), max_size=6), st.sampled_from(["x", "y", "z"]))
def test_hosts_that_give_an_image_up_leave_two_that_keep_it(holders: set[str], digest: str) -> None:
    image = objects.Image(manifest_digest=digest, node_ids=sorted(holders))
    nodes = set("abcdef")
    giving = {own for own in nodes if items_plan.others_that_keep([image], nodes, digest, own)}
    assert len(holders - giving) == min(2, len(holders))


def test_data_of_volumes_goes_only_by_hand() -> None:
    volumes = [
        (LocalVolume("known", "shop", "data"), Folder("known", 50, NOW - 90 * DAY_MS)),
        (LocalVolume("lost", "shop", "data"), Folder("lost", 50, NOW - 90 * DAY_MS)),
        (LocalVolume("anon", "shop", "", "t1"), Folder("anon", 5, NOW - DAY_MS)),
        (LocalVolume("busy", "shop", "", "t2"), Folder("busy", 5, NOW - DAY_MS)),
    ]
    items = items_plan.volume_items(volumes, 1, {"known"}, {"t2"}.__contains__, sure=True)
    assert names(garbage_plan.plan(systems(99), items, NOW, HIGH, LOW)) == ["anon"]
    assert names(garbage_plan.plan(systems(10), items, NOW, HIGH, LOW, {"volume"})) == ["lost", "anon"]
    unsure = items_plan.volume_items(volumes, 1, {"known"}, {"t2"}.__contains__, sure=False)
    assert names(garbage_plan.plan(systems(99), unsure, NOW, HIGH, LOW, {"volume"})) == []


def test_logs_of_ended_tasks_go_by_age_and_those_of_running_ones_never() -> None:
    logs = [Folder("old", 5, NOW - 31 * DAY_MS), Folder("new", 5, NOW - DAY_MS), Folder("runs", 5, 0)]
    items = items_plan.log_items(logs, 1, {"runs"}.__contains__, 30, sure=True)
    assert names(garbage_plan.plan(systems(10), items, NOW, HIGH, LOW)) == ["old"]
    assert names(garbage_plan.plan(systems(90), items, NOW, HIGH, LOW)) == ["old", "new"]
    forever = items_plan.log_items(logs, 1, {"runs"}.__contains__, 0, sure=True)
    assert names(garbage_plan.plan(systems(10), forever, NOW, HIGH, LOW)) == []


def test_reclaimable_is_what_goes_with_the_unneeded_of_a_kind() -> None:
    items = [item("image", "a", base=50, own=1), item("image", "b", 0, "a task", base=50), item("log", "l", log=3)]
    assert garbage_plan.reclaimable_bytes(items) == {"image": 1, "log": 3}
