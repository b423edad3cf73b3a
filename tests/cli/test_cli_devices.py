"""Devices in a Compose file: each form that Compose has for them, and x-fairway's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto.device_rules import request_words
from tests.cli.test_cli_compose import service

RESERVED = "deploy: {resources: {reservations: {devices: [%s]}}}"


def asked(lines: str) -> list[str]:
    return [request_words(each) for each in service(lines).resources.devices]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("gpus: all", ["all nvidia.com/gpu"]),
        ("gpus: 2", ["2 nvidia.com/gpu"]),
        ("gpus: [{driver: amd, count: 1}, {count: all}]", ["1 amd.com/gpu", "all nvidia.com/gpu"]),
        ("gpus: [{device_ids: ['0', GPU-1]}]", ["nvidia.com/gpu=0, nvidia.com/gpu=GPU-1"]),
        (RESERVED % "{driver: nvidia, count: 3, capabilities: [gpu]}", ["3 nvidia.com/gpu"]),
        (RESERVED % "{driver: nvidia, capabilities: [gpu], options: {}}", ["all nvidia.com/gpu"]),
        (RESERVED % "{driver: example.com/fpga, count: -1, capabilities: [fpga]}", ["all example.com/fpga"]),
        (RESERVED % "{driver: cdi, capabilities: [gpu], device_ids: [example.com/x=a]}", ["example.com/x=a"]),
        (RESERVED % "{driver: intel, capabilities: [gpu], device_ids: [card0]}", ["intel.com/gpu=card0"]),
        ("devices: [example.com/x=a, example.com/x=b, /dev/fuse]", ["example.com/x=a, example.com/x=b"]),
        ("x-fairway: {devices: [{kind: example.com/x}]}", ["1 example.com/x"]),
        ("x-fairway: {devices: [{kind: example.com/x, count: all}]}", ["all example.com/x"]),
        ("x-fairway: {devices: [{kind: example.com/x, names: [a, b]}]}", ["example.com/x=a, example.com/x=b"]),
        (
            "x-fairway: {devices: [{kind: example.com/x, count: 2, properties: {model: A 1, size: 40}}]}",
            ["2 example.com/x with model == A 1 and size == 40"],
        ),
        (
            "x-fairway: {devices: [{kind: example.com/x, properties: ['model!=A']}]}",
            ["1 example.com/x with model != A"],
        ),
    ],
)
def test_what_is_asked_for(lines: str, expected: list[str]) -> None:
    assert asked(lines) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("gpus: some", "'some' is not a whole number"),
        ("gpus: 0", "0 is not between 1 and 64"),
        ("gpus: [{driver: other}]", "the driver 'other' is not known"),
        ("gpus: [{driver: cdi}]", "has no device_ids"),
        ("gpus: [{driver: cdi, device_ids: ['0']}]", "'0' is not a device of CDI"),
        ("gpus: [{device_ids: ['0', '0']}]", "nvidia.com/gpu=0 is asked for twice"),
        ("gpus: [{device_ids: ['a b']}]", "'a b' is not the name of a device"),
        ("gpus: [{memory: 5}]", "gpus[0].memory"),
        ("devices: ['x=y']", "neither a path below /dev nor a device of CDI"),
        ("x-fairway: {devices: [{count: 2}]}", "has no kind"),
        ("x-fairway: {devices: [{kind: gpu}]}", "'gpu' is not a kind of device"),
        ("x-fairway: {devices: [{kind: a.b/c, names: [x], count: 2}]}", "has no effect where devices are named"),
        ("x-fairway: {devices: [{kind: a.b/c, properties: [model]}]}", "is not about a property"),
        ("{gpus: 40, x-fairway: {devices: [{kind: a.b/c, count: 30}]}}", "more than 64 devices"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(lines: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        if lines.startswith("{"):
            text = json.dumps(
                {
                    "services": {
                        "web": {"image": "a", "gpus": 40, "x-fairway": {"devices": [{"kind": "a.b/c", "count": 30}]}}
                    }
                }
            )
            project.parse(text, "f", Path("/nowhere"), {})
        service(lines)
    assert words in str(refused.value)


def test_files_add_devices_and_the_same_one_is_not_asked_for_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("services: {web: {image: a, devices: ['a.b/c=0:1', 'a.b/c=0:2']}}")
    second.write_text("services: {web: {devices: ['a.b/c=0:2', 'a.b/c=1']}}")
    read = project.load([first, second], {}, project.Choices("app"))
    (request,) = read.spec.services["web"].resources.devices
    assert list(request.names) == ["0:1", "0:2", "1"]
