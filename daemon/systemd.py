"""Tells systemd how the daemon is, and has it hold descriptors: sd_notify(3), datagrams to NOTIFY_SOCKET."""

from __future__ import annotations

import array
import contextlib
import logging
import os
import socket
from collections.abc import Collection

logger = logging.getLogger(__name__)

SEND_S_MAX = 1.0
_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


def notify(state: str, *files: int) -> bool:
    """Sends `state` ("READY=1"), and descriptors with it; False where systemd did not start the daemon."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(SEND_S_MAX)
            channel.connect(address)
            channel.sendmsg([state.encode()], rights)
    except OSError as error:
        logger.warning("systemd was not told %s: %s", state.partition("\n")[0], error)
    return True


class DescriptorStore:
    """FIFOs of tasks that systemd holds open while the daemon is away (FileDescriptorStoreMax= of the unit).

    It gives them to the next daemon, by LISTEN_FDS, which holds them until whoever reads them is done.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = _inherited()  # name -> descriptor of this process; -1: systemd alone has it

    def keep(self, name: str, file: int) -> None:
        # Without FDPOLL=0 it would let go of one as soon as all writers have, which is when it is needed.
        if name not in self._kept and notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", file):
            self._kept[name] = -1

    def drop(self, name: str) -> None:
        file = self._kept.pop(name, None)
        if file is None:
            return
        notify(f"FDSTOREREMOVE=1\nFDNAME={name}")
        if file >= 0:
            with contextlib.suppress(OSError):
                os.close(file)

    def kept(self) -> Collection[str]:
        return self._kept.keys()


def _inherited() -> dict[str, int]:
    """What the service manager passed to this very process; the variables are not for its children."""
    count, names = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_FDNAMES", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, int] = {}
    for file, name in zip(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)), names.split(":"), strict=False):
        os.set_inheritable(file, False)
        if name in found:
            os.close(file)
        else:
            found[name] = file
    return found
