"""What each verb of `fairway lab` does and prints."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from lab import host as hosts_on
from lab import record as records
from lab.cluster import Lab
from lab.layout import DEFAULT_NAME, LabError
from lab.switch import MAIN_BRIDGE

_FOLLOW_POLL_SECONDS = 0.1


def up(arguments: argparse.Namespace) -> int:
    """Makes the lab, saying what is done as it is done."""
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    try:
        lab = Lab.make(
            arguments.name,
            arguments.hosts,
            state_folder=arguments.state_folder,
            build=arguments.build,
            ipv6_underlay=arguments.underlay == "ipv6",
            host_cpu_millis=arguments.cpu_millis,
            host_memory_bytes=arguments.memory_mib << 20,
            keep_on_failure=arguments.keep,
            on_failure=_print_log_tails,
            progress=progress,
        )
    except LabError:
        if arguments.keep:
            print(
                f"What was made is kept; remove it: fairway lab down{_option(arguments.name)}",
                file=sys.stderr,
            )
        raise
    option = _option(lab.name)
    print(
        f"\nLab {lab.name!r} is up. Look around:\n"
        f"  fairway lab exec{option} host-1 -- fairway status\n"
        f'  eval "$(fairway lab env{option})"; fairway node ls\n'
        f"Take it down:\n"
        f"  fairway lab down{option}"
    )
    return 0


def _print_log_tails(lab: Lab) -> None:
    for host in lab.hosts():
        for program in ("fairwayd", "containerd"):
            text = hosts_on.tail(lab.paths.log(host, program), 12)
            if text:
                print(f"\n--- {host}: the last of {program}'s log\n{text}", file=sys.stderr)


def _option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


def ls(_: argparse.Namespace) -> int:
    """One line a lab."""
    names = records.names()
    if not names:
        print("There is no lab on this machine; make one: fairway lab up")
        return 0
    print(f"{'LAB':20} {'HOSTS':>5} {'ON':>4} {'CLIENTS':>8}  STATE FOLDER")
    for name in names:
        try:
            lab = Lab.open(name)
            hosts = lab.hosts()
            on = sum(lab.is_on(host) for host in hosts)
            print(f"{name:20} {len(hosts):>5} {on:>4} {len(lab.clients()):>8}  {lab.paths.state}")
        except LabError:  # it may have been taken down meanwhile
            if name in records.names():
                raise
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Hosts and clients, what runs on them, and which of them can talk to which."""
    lab = Lab.open(arguments.name)
    sides = {port: bridge for bridge, ports in lab.partitions().items() for port in ports}
    print(f"{'HOST':12} {'ADDRESS':14} {'POWER':6} {'FAIRWAYD':>9} {'CONTAINERD':>11}  NETWORK")
    for host in lab.hosts():
        ids = lab.process_ids(host)
        on = lab.is_on(host)
        side = sides.get(host, "")
        network = "-" if not on else "whole" if side == MAIN_BRIDGE else f"cut off ({side})"
        daemons = [str(ids.get(program, "-")) for program in ("fairwayd", "containerd")]
        power = "on" if on else "off"
        print(f"{host:12} {lab.address(host):14} {power:6} {daemons[0]:>9} {daemons[1]:>11}  {network}")
    for client in lab.clients():
        print(f"{client:12} {lab.address(client):14} {'client':6} {'-':>9} {'-':>11}  {sides.get(client, '-')}")
    return 0


def execute(arguments: argparse.Namespace) -> int:
    """Becomes the command, on the host or client."""
    words: list[str] = arguments.command
    argv = words[1:] if words[:1] == ["--"] else words
    lab = Lab.open(arguments.name)
    command = lab.command_in(arguments.target, argv or [os.environ.get("SHELL", "/bin/sh")])
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606


def env(arguments: argparse.Namespace) -> int:
    """Shell lines for `eval`: `fairway` then talks to the first host that is on."""
    lab = Lab.open(arguments.name)
    for host in lab.hosts():
        if lab.is_on(host):
            print(f"export FAIRWAY_SOCKET={shlex.quote(str(lab.socket(host)))}")
            print(f"export FAIRWAY_LAB={shlex.quote(lab.name)}")
            return 0
    raise LabError(f"no host of lab {lab.name!r} is on; start one: fairway lab start host-1")


def logs(arguments: argparse.Namespace) -> int:
    """Ends of the host's logs; with --follow until interrupted."""
    lab = Lab.open(arguments.name)
    lab.address(arguments.host)  # refuses a host that is not there
    programs = ("containerd", "fairwayd") if arguments.program == "all" else (arguments.program,)
    paths = {program: lab.paths.log(arguments.host, program) for program in programs}
    offsets = {}
    for program, path in paths.items():
        text = hosts_on.tail(path, arguments.lines)
        offsets[program] = path.stat().st_size if path.exists() else 0
        for line in text.splitlines():
            print(f"{program:10} | {line}")
    while arguments.follow and paths:
        sys.stdout.flush()
        time.sleep(_FOLLOW_POLL_SECONDS)
        for program, path in paths.items():
            offsets[program] = _print_new(program, path, offsets[program])
    return 0


def _print_new(program: str, path: Path, offset: int) -> int:
    """Prints whole lines that came after `offset`; the new offset is returned."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if size < offset else offset)  # smaller: it was cut
            start = file.tell()
            data = file.read(1 << 20)
    except FileNotFoundError:
        return 0
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        print(f"{program:10} | {line}")
    return start + len(whole)


def kill(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    for host in arguments.hosts:
        lab.kill(host)
        print(f"{host} is off: daemon, containerd, shims and containers ended at once")
    return 0


def start(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    for host in arguments.hosts:
        lab.start(host)
        print(f"{host} is on")
    return 0


def restart_daemon(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    for host in arguments.hosts:
        pid = lab.restart_daemon(host)
        print(f"fairwayd of {host} (process {pid}) was killed and is started again")
    return 0


def upgrade(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    for host in arguments.hosts:
        lab.change_build(host, arguments.build)
        print(f"fairwayd of {host} is stopped and started again from {arguments.build or 'this source tree'}")
    return 0


def partition(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    lab.partition(arguments.hosts)
    print(f"cut off from all others: {', '.join(arguments.hosts)}; end it: fairway lab heal{_option(lab.name)}")
    return 0


def heal(arguments: argparse.Namespace) -> int:
    Lab.open(arguments.name).heal()
    print("every host reaches every other again")
    return 0


def client(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    name = lab.client(arguments.client, arguments.via)
    through = ", ".join(arguments.via) or "all hosts"
    print(f"client {name} is at {lab.address(name)}; the cluster's addresses lie behind {through}")
    print(f"use it: fairway lab exec{_option(lab.name)} {name} -- COMMAND")
    return 0


def down(arguments: argparse.Namespace) -> int:
    names = records.names() if arguments.all else [arguments.name]
    for name in names:
        began = time.monotonic()
        Lab.open(name).down()
        print(f"lab {name} is gone ({time.monotonic() - began:.1f} s)")
    return 0
