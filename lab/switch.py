"""The underlay of a lab: a bridge in a network namespace of its own, to which hosts and clients are wired.

A process that sleeps holds each namespace; when it ends, the kernel takes bridge, cables and addresses
away. A partition is a second bridge: the cut hosts' ports move to it, so links stay up and packets do not
arrive, as when a cable between two switches breaks.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.layout import (
    SWITCH_ADDRESS,
    UNDERLAY_IPV6_PREFIX_BITS,
    UNDERLAY_PREFIX_BITS,
    LabError,
    both_addresses,
)
from lab.processes import ProcessMark, mark

MAIN_BRIDGE = "main"
_COMMAND_TIMEOUT_SECONDS = 20


def in_network(holder: ProcessMark, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in the network namespace of `holder`.

    nsenter and not `ip netns exec`, which mounts a /sys in which runc finds no cgroups.
    """
    return ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", *argv]


def configure(holder: ProcessMark, lines: Sequence[str]) -> None:
    """Runs `ip -batch` with these lines in the namespace of `holder`; raises LabError with ip's words."""
    done = subprocess.run(
        in_network(holder, ["ip", "-batch", "-"]),
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"the lab's network could not be set up: {done.stderr.strip()} (in: {'; '.join(lines)})")


def hold_namespace() -> ProcessMark:
    """Starts a process that holds a new network namespace, and waits until it is there."""
    own = _network_of("self")
    process = subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", "echo ready; exec sleep infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        ready = process.stdout.readline()
        if not ready or _network_of(str(process.pid)) == own:
            process.kill()
            raise LabError(f"no network namespace could be made: {process.stderr.read().decode().strip()}")
    # It is left to live on; its end is seen by its mark, and no warning about it is wanted.
    process.returncode = 0
    return mark(process.pid)


def _network_of(pid: str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def make_switch() -> ProcessMark:
    """A namespace with the bridge, its address, and forwarding that refuses all that leaves the lab."""
    holder = hold_namespace()
    configure(
        holder,
        [
            "link set lo up",
            f"link add {MAIN_BRIDGE} type bridge forward_delay 0",
            *_addresses(SWITCH_ADDRESS, MAIN_BRIDGE),
            f"link set {MAIN_BRIDGE} up",
            "route add unreachable default",
            "route add unreachable ::/0",
        ],
    )
    subprocess.run(
        in_network(
            holder, ["sh", "-c", "echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"]
        ),
        check=True,
        capture_output=True,
        timeout=_COMMAND_TIMEOUT_SECONDS,
    )
    return holder


def connect(switch: ProcessMark, end: ProcessMark, name: str, address: str, bridge: str) -> None:
    """Wires eth0 of `end`'s namespace to port `name` of the switch; an older cable of the name goes first.

    Its MAC address comes with the IP address, as a host has the same network card after a power cut: with another one,
    who talked to it before would send into the void for up to eight seconds (ARP: DELAY, then three probes).
    """
    disconnect(switch, name)
    configure(
        switch,
        [
            f"link add {name} type veth peer name eth0 address {_mac(address)} netns {end.pid}",
            f"link set {name} master {bridge}",
            f"link set {name} up",
        ],
    )
    configure(
        end,
        [
            "link set lo up",
            *_addresses(address, "eth0"),
            "link set eth0 up",
            f"route add default via {SWITCH_ADDRESS}",
            f"route add ::/0 via {both_addresses(SWITCH_ADDRESS)[1]} dev eth0",
        ],
    )


def _mac(address: str) -> str:
    """A locally administered one."""
    return "02:fa:" + ":".join(f"{int(part):02x}" for part in both_addresses(address)[0].split("."))


def _addresses(address: str, device: str) -> list[str]:
    ipv4, ipv6 = both_addresses(address)
    return [
        f"address add {ipv4}/{UNDERLAY_PREFIX_BITS} dev {device}",
        f"address add {ipv6}/{UNDERLAY_IPV6_PREFIX_BITS} dev {device} nodad",
    ]


def disconnect(switch: ProcessMark, name: str) -> None:
    """Removes the port; none of that name is fine."""
    if name in ports(switch):
        try:
            configure(switch, [f"link delete {name}"])
        except LabError:
            if name in ports(switch):  # else the kernel was quicker: its namespace had ended
                raise


def ports(switch: ProcessMark) -> dict[str, str]:
    """Port name -> bridge it is on."""
    listing = subprocess.run(
        in_network(switch, ["ip", "-o", "link", "show", "type", "veth"]),
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_SECONDS,
        check=True,
    ).stdout
    found: dict[str, str] = {}
    for line in listing.splitlines():
        words = line.split()
        name = words[1].rstrip(":").partition("@")[0]
        found[name] = words[words.index("master") + 1] if "master" in words else ""
    return found


def move_ports(switch: ProcessMark, names: Sequence[str], bridge: str) -> None:
    """Moves ports to `bridge`, which is made where it does not exist."""
    lines = []
    if bridge != MAIN_BRIDGE and bridge not in _bridges(switch):
        lines += [f"link add {bridge} type bridge forward_delay 0", f"link set {bridge} up"]
    lines += [f"link set {name} master {bridge}" for name in names]
    if lines:
        configure(switch, lines)


def drop_side_bridges(switch: ProcessMark) -> None:
    """Removes all bridges but the main one; call when no port is on them."""
    lines = [f"link delete {name}" for name in _bridges(switch) if name != MAIN_BRIDGE]
    if lines:
        configure(switch, lines)


def _bridges(switch: ProcessMark) -> list[str]:
    listing = subprocess.run(
        in_network(switch, ["ip", "-o", "link", "show", "type", "bridge"]),
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_SECONDS,
        check=True,
    ).stdout
    return [line.split()[1].rstrip(":") for line in listing.splitlines()]
