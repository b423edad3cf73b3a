"""`./run demo`: three hosts on this machine, a shop on them, a host that dies, one that is drained."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys

from lab import host as hosts_on
from lab import record as records
from lab.cluster import Lab
from lab.demo.screen import Screen
from lab.demo.story import NAME, Story
from lab.layout import LabError


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--down", action="store_true", help="take everything down at the end")
    choice.add_argument("--keep", action="store_true", help="leave it running (the default on a terminal)")
    arguments = parser.parse_args()
    keep = arguments.keep or (sys.stdout.isatty() and not arguments.down and "CI" not in os.environ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is taken down
    screen = Screen()
    if NAME in records.names():
        screen.note(f"an earlier demonstration is still up: taking it down first (lab {NAME!r})")
        Lab.open(NAME).down()
    story = Story(screen)
    finished = False
    try:
        story.tell()
        finished = True
    except LabError as error:
        screen.bad(str(error))
        if story.lab is not None:
            _show_logs(story.lab)
    except KeyboardInterrupt:
        screen.bad("interrupted")
    finally:
        if story.lab is not None and not (keep and finished):
            story.lab.down()
            screen.done("the lab is down; nothing of it is left")
    if keep and finished:
        _look_around(screen)
    screen.finish()
    return 0 if finished and not story.shortcomings else 1


def _show_logs(lab: Lab) -> None:
    with contextlib.suppress(LabError):
        for host in lab.hosts():
            text = hosts_on.tail(lab.paths.log(host, "fairwayd"), 8)
            print(f"\n--- {host}: the last of fairwayd's log\n{text}", file=sys.stderr)


def _look_around(screen: Screen) -> None:
    screen.section("Your turn", "All of it is still running.")
    fairway = str(hosts_on.program_folder() / "fairway")
    for words in (
        f'eval "$({fairway} lab env --name {NAME})"',
        f"{fairway} node ls",
        f"{fairway} ps shop",
        f"{fairway} logs shop/web",
        f"{fairway} exec -it shop/api.1 -- sh",
        f"{fairway} lab exec --name {NAME} host-1 -- nft list ruleset",
        f"{fairway} lab kill --name {NAME} host-2      # and: start, partition, heal",
        f"{fairway} lab down --name {NAME}             # take it all down",
    ):
        screen.command([words])


if __name__ == "__main__":
    sys.exit(main())
