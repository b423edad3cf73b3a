"""What is on a host of tasks: containers, processes, namespaces, interfaces, mounts, folders, balancers, names."""

from __future__ import annotations

import json
import re
import socket
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from daemon.ids import ALPHABET, LENGTH
from lab import cgroups
from lab.cluster import Lab
from net import dns_message as message
from net.addresses import GATEWAY_ADDRESS
from net.namespaces import within_namespace

_CONTAINERS = "containers"
_COMMANDS = {
    _CONTAINERS: "ctr -n fairway containers ls -q",
    "processes of containerd": "ctr -n fairway tasks ls -q",
    # Those of an image whose download was cut off stay for the next try, for some hours.
    "leases of containerd": "ctr -n fairway leases ls | grep -v gc.expire",
    "links": "ip -j -d link",
    "backends": "nft -j list map inet fairway_fw backends",
}
_MARK = "@@@"
# Below the host's root folder; each task that is there has an entry of its name.
_FOLDERS = ("run/fairway/netns", "run/fairway/tasks", "run/containerd/io.containerd.runtime.v2.task/fairway")
_TASK = re.compile(rf"[{ALPHABET}]{{{LENGTH}}}")
_VOLUMES = "var/lib/fairway/volumes"
ANSWER_SECONDS_MAX = 2.0


@dataclass
class Sight:
    """One host at one moment."""

    # Kind of thing -> ids of tasks that have one.
    tasks: dict[str, set[str]] = field(default_factory=dict)
    veths: int = 0
    strangers: list[str] = field(default_factory=list)  # things that belong to no task, in words
    volumes: set[str] = field(default_factory=set)  # ids
    backends: dict[str, set[str]] = field(default_factory=dict)  # VIP -> addresses
    names: dict[str, set[str]] = field(default_factory=dict)  # name -> addresses


def look(lab: Lab, host: str, names: Iterable[str]) -> Sight:
    """`names`: that are asked for at the host's name server, as the host itself asks."""
    daemon = Path("/proc") / str(lab.process_ids(host)["fairwayd"])
    script = "\n".join(f"echo '{_MARK}{name}'; {command}" for name, command in _COMMANDS.items())
    printed = lab.run_in(host, ["sh", "-c", script], check=False).stdout
    outputs = {part.partition("\n")[0]: part.partition("\n")[2] for part in printed.split(_MARK)[1:]}
    found = Sight()
    for kind in (_CONTAINERS, "processes of containerd"):
        found.tasks[kind] = set(outputs[kind].split())
    found.strangers += [f"lease {each} of containerd" for each in outputs["leases of containerd"].splitlines()[1:]]
    found.veths = sum(
        link.get("linkinfo", {}).get("info_kind") == "veth" for link in json.loads(outputs["links"] or "[]")
    )
    found.veths -= 1  # the host's own, on the underlay
    found.backends = _backends(outputs["backends"])
    for folder in _FOLDERS:
        found.tasks[f"/{folder}"] = _entries(daemon / "root" / folder)
    found.tasks["control groups"] = _control_groups(cgroups.cgroup_parent(lab.name, host))
    found.tasks["mounts"] = _mounted(daemon)
    found.volumes = _entries(daemon / "root" / _VOLUMES)
    found.names = ask(daemon / "ns/net", names)
    return found


def _entries(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return set()


def _control_groups(parent: str) -> set[str]:
    """Of all hierarchies."""
    folders = [root / parent.lstrip("/") for root in cgroups.hierarchies()]
    return {name for folder in folders if folder.is_dir() for name in _entries_that_are_folders(folder)} - {"system"}


def _entries_that_are_folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


def _mounted(process: Path) -> set[str]:
    """Ids of tasks in the places where something is mounted."""
    places = (line.split()[4] for line in (process / "mountinfo").read_text().splitlines())
    return {found.group() for place in places if (found := _TASK.search(place))}


def _backends(printed: str) -> dict[str, set[str]]:
    """From `nft -j list map`, whose elements are [{"concat": [VIP, number]}, address]."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in json.loads(printed or "{}").get("nftables", ()):
        for key, address in entry.get("map", {}).get("elem", ()):
            found[key["concat"][0]].add(address)
    return dict(found)


def ask(network: Path, names: Iterable[str]) -> dict[str, set[str]]:
    """Name -> addresses that the name server of the namespace's host gives for it, and the host asks."""

    def within() -> dict[str, set[str]]:
        found = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(ANSWER_SECONDS_MAX)
            asking.connect((GATEWAY_ADDRESS, 53))
            for number, name in enumerate(names):
                asking.send(message.write_query(number, name, message.TYPE_A, udp_bytes_max=1232))
                try:
                    found[name] = addresses(asking.recv(2048))
                except (TimeoutError, ConnectionError):
                    found[name] = {"no answer"}
        return found

    return within_namespace(network, within)


def addresses(answer: bytes) -> set[str]:
    """Of the A records in a response; empty where it has none."""
    _, _, questions, answers, _, _ = message.HEADER.unpack_from(answer)
    offset = message.HEADER.size
    for _ in range(questions):
        offset = message.skip_name(answer, offset) + 4
    found = set()
    for _ in range(answers):
        end, kind, _, _ = message.skip_record(answer, offset)
        if kind == message.TYPE_A:
            found.add(socket.inet_ntoa(answer[end - 4 : end]))
        offset = end
    return found
