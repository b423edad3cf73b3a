"""What a host tells of its devices: with its description, again when they change; what is wrong is a condition."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from cli import device_lines
from daemon.agent.device_agent import CONDITION, DeviceAgent
from daemon.agent.reports import Reports
from proto import objects_pb2 as objects
from runtime.cdi_folders import CdiFolders


def write(folder: Path, name: str, *files: str) -> None:
    devices = [{"name": path.rpartition("/")[2], "containerEdits": {"deviceNodes": [{"path": path}]}} for path in files]
    (folder / name).write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "example.com/thing", "devices": devices}))
    (folder / name).chmod(0o644)


def test_devices_go_with_the_description_and_what_is_wrong_is_a_condition(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    reports = Reports()
    agent = DeviceAgent(CdiFolders([tmp_path]), ["example.com/thing=zero"], reports)
    write(tmp_path, "a.json", "/dev/null", "/dev/zero", "/dev/no-such-device")
    trio.run(agent.look)
    reports.description(objects.NodeDescription(hostname="here"))
    first = reports.first("192.0.2.1")
    assert [(each.name, each.shared) for each in first.description.devices] == [("null", False), ("zero", True)]
    (condition,) = first.conditions
    assert condition.kind == CONDITION
    assert condition.message == (
        "example.com/thing=no-such-device is not there: the host has no device file /dev/no-such-device"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CdiFolders, "look", lambda folders: folders.nothing_such)
        trio.run(agent.look)  # which is logged, and nothing more
    trio.run(agent.look)
    again = reports.next()
    assert not again.HasField("description") and not again.conditions_changed

    write(tmp_path, "a.json", "/dev/null")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.yaml").write_text("[")
    trio.run(agent.look)
    changed = reports.next()
    assert [each.name for each in changed.description.devices] == ["null"]
    assert changed.description.hostname == "here"
    assert "b.json: it is not JSON" in changed.conditions[0].message and "1 more" in changed.conditions[0].message
    for name in ("a.json", "b.json", "c.yaml"):
        (tmp_path / name).unlink()
    trio.run(agent.look)
    last = reports.next()
    assert last.HasField("description") and not last.description.devices
    assert last.conditions_changed and not last.conditions


def test_who_holds_a_device_is_said_of_all_its_names() -> None:
    node = objects.Node(meta=objects.Meta(id="n"))
    for name, units, most in (("0", ["a"], 1), ("GPU-1", ["a"], 1), ("1", ["b"], 4), ("all", ["a", "b"], 0)):
        node.description.devices.add(kind="a.b/c", name=name, units=units, shared=most != 1, tasks_max=most)
    node.description.devices[0].properties["model"] = "A"
    held = objects.AllottedDevice(kind="a.b/c", name="0", units=["a"])
    lost = objects.AllottedDevice(kind="a.b/c", name="9", units=["c"])
    tasks = [
        objects.Task(
            meta=objects.Meta(name="web.1"), app="shop", node_id="n", address="10.0.0.1", devices=[held, lost]
        ),
        objects.Task(meta=objects.Meta(name="web.2"), app="shop", node_id="n", devices=[held]),  # it is gone
        objects.Task(meta=objects.Meta(name="web.3"), app="shop", node_id="m", address="10.0.0.1", devices=[held]),
    ]
    assert device_lines.rows(node, tasks) == [
        ("a.b/c=0", "no", "model=A", "shop/web.1"),
        ("a.b/c=GPU-1", "no", "", "shop/web.1"),
        ("a.b/c=1", "by 4", "", ""),
        ("a.b/c=all", "yes", "", "shop/web.1"),
        ("a.b/c=9", "gone", "", "shop/web.1"),
    ]
