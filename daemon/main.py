"""The `fairwayd` command."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import trio

from daemon import config as configuration
from daemon.errors import Refused
from daemon.fairwayd import Fairwayd
from daemon.identity.host_description import fairway_version
from daemon.identity.identity import IdentityBroken
from daemon.systemd import notify
from proto import grpc_trio
from raft.errors import MemberFault

SWITCH_SECONDS = 0.0005  # the raft thread waits no longer for a main thread that computes
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits(3)


def main() -> int:
    """Runs the daemon until SIGTERM or SIGINT; exit status 0, 1 (it failed), 78 (its settings are wrong)."""
    arguments = _parser().parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=arguments.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    try:
        config = configuration.load(arguments.config)
    except configuration.ConfigError as error:
        return _fail(str(error), EXIT_CONFIGURATION)
    if arguments.check:
        return 0
    if os.geteuid() != 0:
        return _fail("fairwayd must run as root: it makes network namespaces, mounts and containers", 1)
    sys.setswitchinterval(SWITCH_SECONDS)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    failure = ""
    try:
        grpc_trio.run(_run, config)
    except* (Refused, IdentityBroken, MemberFault) as group:
        failure = "; ".join(str(error) for error in _leaves(group))
    return _fail(failure, 1) if failure else 0


async def _run(config: configuration.Config) -> None:
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            daemon = Fairwayd(config)
            await nursery.start(daemon.run)
            # What lives as long as the daemon is not looked at again by the collector.
            gc.collect()
            gc.freeze()
            notify("READY=1")
            async for _ in signals:
                logging.getLogger(__name__).info("stopping; containers go on running")
                notify("STOPPING=1")
                await daemon.hand_over()
                nursery.cancel_scope.cancel()
                return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fairwayd", description="The Fairway daemon: one on every host of a cluster, run by systemd."
    )
    parser.add_argument("--config", type=Path, help=f"settings; default {configuration.DEFAULT_PATH}")
    parser.add_argument("--check", action="store_true", help="only say whether the settings are right")
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="default info"
    )
    parser.add_argument("--version", action="version", version=f"fairwayd {fairway_version()}")
    return parser


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"fairwayd: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
