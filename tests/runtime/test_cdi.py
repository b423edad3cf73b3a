"""CDI specifications: what counts, what is refused and why, what a device is made of, and the edits of a container."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runtime import cdi_edits
from runtime.cdi_devices import TOLD_BYTES_MAX, host_devices
from runtime.cdi_folders import CdiFolders, CdiRegistry, missing_node, read
from runtime.cdi_model import CdiFault, CdiSpec
from runtime.cdi_parse import YAML_BYTES_MAX, parse
from runtime.errors import InvalidRequest

NVIDIA = Path(__file__).with_name("nvidia_cdi.yaml")  # as nvidia-ctk cdi generate writes it, of two GPUs


def spec(**changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "cdiVersion": "0.6.0",
        "kind": "example.com/thing",
        "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}],
    }
    return {**said, **changed}


def device(name: str, *files: str, **more: Any) -> dict[str, Any]:
    edits = {"deviceNodes": [{"path": path} for path in files]} if files else {"env": [f"NAME={name}"]}
    return {"name": name, "containerEdits": edits, **more}


def parsed(said: Any) -> CdiSpec:
    return parse(json.dumps(said).encode(), Path("/etc/cdi/example.json"))


def write(folder: Path, name: str, said: Any) -> None:
    folder.mkdir(exist_ok=True, mode=0o755)
    path = folder / name
    path.write_text(json.dumps(said))
    path.chmod(0o644)


def test_a_specification_of_nvidias_toolkit_says_two_gpus_under_three_names() -> None:
    found = parse(NVIDIA.read_bytes(), NVIDIA)
    assert [each.name for each in found.devices] == ["0", _uuid(found, 1), "1", _uuid(found, 3), "all"]
    assert found.edits.environment == ("NVIDIA_VISIBLE_DEVICES=void",)
    assert {hook.name for hook in found.edits.hooks} == {"createContainer"}
    assert found.edits.hooks[2].arguments[1] == "update-ldcache"
    assert "bind" in found.edits.mounts[0].options

    told, problems = host_devices(found.devices)
    units = {each.name: list(each.units) for each in told}
    assert not problems and not any(each.shared for each in told)
    assert units["0"] == units[_uuid(found, 1)] and len(units["0"]) == 1
    assert units["1"] == units[_uuid(found, 3)] != units["0"]
    assert units["all"] == sorted(units["0"] + units["1"])


def _uuid(found: CdiSpec, index: int) -> str:
    assert found.devices[index].name.startswith("GPU-")
    return found.devices[index].name


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cdiVersion": "0.2.0"}, "cdiVersion '0.2.0'"),
        ({"cdiVersion": "2.0.0"}, "cdiVersion '2.0.0'"),
        ({"cdiVersion": None}, "cdiVersion of the specification is missing"),
        ({"kind": "gpu"}, "not of the form vendor.com/class"),
        ({"kind": "example.com/a/b"}, "not of the form vendor.com/class"),
        ({"kind": "example.com/a.b", "cdiVersion": "0.5.0"}, "needs cdiVersion 0.6.0, and the file says 0.5.0"),
        ({"annotations": {"a": "b"}, "cdiVersion": "0.5.0"}, "annotations needs cdiVersion 0.6.0"),
        ({"annotations": {"a": 1}}, "is not a mapping of texts"),
        ({"devices": []}, "it has no devices"),
        ({"devices": [device("a"), device("a")]}, "device a is there twice"),
        ({"devices": [device("-a")]}, "'-a' cannot be the name"),
        ({"devices": [device("0")], "cdiVersion": "0.4.0"}, "begins with a digit"),
        ({"devices": [{"name": "a", "containerEdits": {}}]}, "device a has no containerEdits"),
        ({"devices": "a"}, "is not a list"),
        ({"devices": [device(f"d{number}") for number in range(513)]}, "more than 512 entries"),
        ({"more": 1}, "has 'more', which is not a key of CDI"),
        ({"containerEdits": {"intelRdt": {"closID": "a"}}}, "intelRdt is not supported by Fairway"),
        ({"containerEdits": {"netDevices": [{}]}, "cdiVersion": "1.1.0"}, "netDevices is not supported"),
        ({"containerEdits": {"additionalGids": [5]}}, "additionalGids needs cdiVersion 0.7.0"),
        ({"containerEdits": {"env": ["=a"]}}, "is not NAME=value"),
        ({"containerEdits": {"env": ["A=" + "a" * 5000]}}, "more than 4096 bytes"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev/a"}]}}, "not an absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "type": "x"}]}}, "has the type 'x'"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "permissions": "rx"}]}}, "the permissions 'rx'"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "major": -1}]}}, "is not a number from 0"),
        (
            {"containerEdits": {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}, "cdiVersion": "0.4.0"},
            "hostPath of a device node needs cdiVersion 0.5.0",
        ),
        ({"containerEdits": {"mounts": [{"hostPath": "/a"}]}}, "containerPath of mounts[0] is missing"),
        (
            {
                "containerEdits": {"mounts": [{"hostPath": "a", "containerPath": "/a", "type": "b"}]},
                "cdiVersion": "0.3.0",
            },
            "type of a mount needs cdiVersion 0.4.0",
        ),
        ({"containerEdits": {"hooks": [{"hookName": "now", "path": "/a"}]}}, "the hook 'now' is not one of"),
        ({"containerEdits": {"hooks": [{"hookName": "poststop"}]}}, "path of hooks[0] is missing"),
        ({"containerEdits": []}, "is not a mapping"),
    ],
)
def test_what_cannot_be_carried_out_whole_is_refused_by_name(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(CdiFault) as refused:
        parsed(spec(**changed))
    assert words in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": 1}', b"kind: a: b"])
@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_anything_else_is_refused_too(text: bytes, name: str) -> None:
    with pytest.raises(CdiFault):
        parse(text, Path("/etc/cdi", name))


def test_a_file_that_is_too_long_is_not_read_as_yaml() -> None:
    with pytest.raises(CdiFault, match="larger than"):
        parse(b"# " + b"a" * YAML_BYTES_MAX, Path("/etc/cdi/a.yaml"))


def test_the_later_folder_wins_and_two_files_of_one_folder_do_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    etc, run = tmp_path / "etc", tmp_path / "run"
    write(etc, "a.json", spec(devices=[device("x", "/dev/null"), device("y", "/dev/zero"), device("z", "/dev/full")]))
    write(etc, "b.json", spec(devices=[device("y"), device("z")]))
    write(etc, "broken.json", {"kind": 1})
    write(etc, "other.txt", {})
    write(run, "c.json", spec(devices=[device("y", "/dev/tty"), device("x", "/dev/ptmx")]))
    found = read([etc, run, tmp_path / "absent"])
    assert sorted(found.devices) == ["example.com/thing=x", "example.com/thing=y"]
    assert found.devices["example.com/thing=y"].edits.nodes[0].path == "/dev/tty"
    assert found.devices["example.com/thing=x"].edits.nodes[0].path == "/dev/ptmx"
    clash, broken = sorted(found.problems, key=lambda text: "broken" in text)
    assert clash.startswith("example.com/thing=z is both in") and "neither counts" in clash
    assert "broken.json: cdiVersion of the specification is missing" in broken


def test_files_that_others_than_root_may_write_do_not_count(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder, open_folder = tmp_path / "cdi", tmp_path / "open"
    for name in ("good.json", "loose.json", "fifo.json", "link.json"):
        write(folder, name, spec(kind=f"example.com/{name[:4]}"))
    (folder / "loose.json").chmod(0o666)
    (folder / "fifo.json").unlink()
    os.mkfifo(folder / "fifo.json")
    write(open_folder, "x.json", spec())
    open_folder.chmod(0o1777)
    (folder / "link.json").unlink()
    (folder / "link.json").symlink_to(open_folder / "x.json")
    found = read([folder, open_folder])
    assert list(found.devices) == ["example.com/good=a"]
    assert len(found.problems) == 4
    assert sum("others than root may write" in problem for problem in found.problems) == 3


def test_a_change_is_seen_at_the_next_look(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "cdi"
    looked = CdiFolders([folder])
    assert looked.look() == CdiRegistry()
    write(folder, "a.json", spec())
    first = looked.look()
    assert list(first.devices) == ["example.com/thing=a"]
    assert looked.look() is first
    write(folder, "a.json", spec(devices=[device("a"), device("b")]))
    assert len(looked.look().devices) == 2
    (folder / "a.json").chmod(0o666)
    assert not looked.look().devices
    (folder / "a.json").unlink()
    assert looked.look() == CdiRegistry()


@pytest.mark.parametrize(
    ("devices", "units"),
    [
        # Two names, and one for all.
        ({"0": "ac", "GPU": "ca", "1": "bd", "all": "abcd"}, {"0": 1, "GPU": 1, "1": 1, "all": 2}),
        # Parts of a GPU share its own file and contain nothing of each other; "all" contains them.
        ({"0:0": "pab", "0:1": "pcd", "all": "pabcd"}, {"0:0": 1, "0:1": 1, "all": 2}),
        # The only one is all of them.
        ({"0": "a", "all": "a"}, {"0": 1, "all": 1}),
        # Without files, a name is all there is.
        ({"x": "", "y": ""}, {"x": 1, "y": 1}),
    ],
)
def test_devices_with_the_same_files_are_one_unit(devices: dict[str, str], units: dict[str, int]) -> None:
    said = spec(devices=[device(name, *(f"/dev/{each}" for each in files)) for name, files in devices.items()])
    told, _ = host_devices(parsed(said).devices)
    found = {each.name: set(each.units) for each in told}
    assert {name: len(each) for name, each in found.items()} == units
    for one, its_files in devices.items():
        for other, other_files in devices.items():
            if one == other:
                continue
            if set(its_files) == set(other_files) and its_files:
                assert found[one] == found[other]
            elif set(its_files) < set(other_files) and its_files:
                assert found[one] <= found[other]
            else:
                assert set(other_files) < set(its_files) or not found[one] & found[other]


def test_who_shares_a_device_is_said_by_its_annotation_or_the_configuration() -> None:
    said = [
        device("yes", annotations={"fairway.shared": "true", "model": "A"}),
        device("four", annotations={"fairway.shared": "4"}),
        device("one", annotations={"fairway.shared": "1"}),
        device("no", annotations={"fairway.shared": "false"}),
        device("odd", annotations={"fairway.shared": "some"}),
        device("silent"),
        device("named"),
    ]
    found = parsed(spec(devices=said, annotations={"maker": "E"})).devices
    told, problems = host_devices(found, ["example.com/thing=named"])
    shared = {each.name: (each.shared, each.tasks_max) for each in told}
    assert shared == {
        "yes": (True, 0),
        "four": (True, 4),
        "one": (False, 1),
        "no": (False, 0),
        "odd": (False, 0),
        "silent": (False, 0),
        "named": (True, 0),
    }
    assert len(problems) == 1 and "example.com/thing=odd" in problems[0]
    assert dict(told[0].properties) == {"model": "A", "maker": "E"}
    assert all(each.shared for each in host_devices(found, ["example.com/thing"])[0] if each.name == "silent")


def test_what_is_told_of_devices_has_a_bound() -> None:
    files = [f"/dev/{number}" for number in range(250)]
    said = [device(f"d{number}", path) for number, path in enumerate(files)]
    said += [device(f"all{number}", *files, f"/dev/x{number}") for number in range(150)]
    told, problems = host_devices(parsed(spec(devices=said)).devices)
    assert 250 < len(told) < 400 and sum(each.ByteSize() for each in told) <= TOLD_BYTES_MAX
    (problem,) = problems
    assert f"={said[len(told)]['name']} and what comes after it is left out" in problem


def _oci() -> dict[str, Any]:
    return {
        "process": {"env": ["PATH=/bin", "A=1"], "user": {"uid": 7, "gid": 8, "additionalGids": [5]}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
            {"destination": "/usr/lib/deep/x", "type": "bind", "source": "/x", "options": ["rbind"]},
            {"destination": "/data", "type": "bind", "source": "/old", "options": ["rbind"]},
        ],
        "linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}, "devices": []},
    }


def test_all_edits_reach_the_container_and_those_of_a_file_once() -> None:
    said = spec(
        cdiVersion="0.7.0",
        containerEdits={
            "env": ["A=2", "B=x=y"],
            "additionalGids": [5, 0, 44],
            "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "a"], "timeout": 3}],
            "mounts": [
                {"hostPath": "/new", "containerPath": "/data", "options": ["ro", "bind"]},
                {"hostPath": "tmpfs", "containerPath": "/run/x", "type": "tmpfs"},
                {"hostPath": "/lib/y", "containerPath": "/usr/lib"},
            ],
        },
        devices=[
            device("a", "/dev/null"),
            {
                "name": "b",
                "containerEdits": {
                    "deviceNodes": [
                        {
                            "path": "/dev/own",
                            "hostPath": "/dev/zero",
                            "permissions": "r",
                            "fileMode": 0o100600,
                            "uid": 0,
                        },
                        {"path": "/dev/gone", "type": "c", "major": 240, "minor": 9, "permissions": "none"},
                    ]
                },
            },
        ],
    )
    found = parsed(said)
    registry = CdiRegistry(
        {each.full_name: each for each in found.devices}, {each.full_name: found for each in found.devices}
    )
    names = ["example.com/thing=a", "example.com/thing=b"]
    oci = _oci()
    cdi_edits.apply(oci, cdi_edits.filled(registry.edits_of(names, [])))
    assert oci["process"]["env"] == ["PATH=/bin", "A=2", "B=x=y"]
    assert oci["process"]["user"]["additionalGids"] == [5, 44]
    assert oci["hooks"] == {"createContainer": [{"path": "/bin/hook", "args": ["hook", "a"], "timeout": 3}]}
    null, own, gone = oci["linux"]["devices"]
    assert null == {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 7, "gid": 8}
    assert own == {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 0, "gid": 8}
    assert (gone["major"], gone["minor"]) == (240, 9)
    assert oci["linux"]["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"},
    ]
    places = [(each["destination"], each["source"], each["type"], each["options"]) for each in oci["mounts"]]
    assert places == [
        ("/proc", "proc", "proc", []),
        ("/data", "/new", "bind", ["ro", "bind"]),
        ("/run/x", "tmpfs", "tmpfs", []),
        ("/usr/lib", "/lib/y", "bind", ["rbind"]),
        ("/usr/lib/deep/x", "/x", "bind", ["rbind"]),
    ]


def test_a_device_that_is_gone_is_named() -> None:
    found = parsed(
        spec(devices=[device("a", "/dev/no-such-device"), device("b", "/etc/passwd"), device("c", "/dev/null")])
    )
    absent, no_device, good = found.devices
    assert [missing_node(each) is None for each in (absent, no_device, good)] == [False, False, True]
    with pytest.raises(InvalidRequest, match="/dev/no-such-device is not there any more"):
        cdi_edits.filled(absent.edits)
    with pytest.raises(InvalidRequest, match="/etc/passwd is not the device file"):
        cdi_edits.filled(no_device.edits)
    with pytest.raises(InvalidRequest, match=r"example.com/thing=z is not there any more: .* /etc/cdi has it"):
        CdiRegistry().edits_of(["example.com/thing=z"], [Path("/etc/cdi")])
