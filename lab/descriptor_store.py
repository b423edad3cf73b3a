"""What systemd does for a daemon that gives it descriptors to hold (sd_notify(3), FDSTORE): a lab host has no systemd.

As `python descriptor_store.py COUNT COMMAND...` it is the step between: it numbers what it was passed from 3 on and
becomes the daemon (sd_listen_fds(3)). Only the standard library is used.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import sys
from types import FrameType

_FIRST = 3
_MESSAGE_BYTES_MAX = 4096


class DescriptorStore:
    """Also the wait of its process: for a message, for the end of a child, or for a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101 this process loads as little as it can
        self._socket.setblocking(False)
        self._ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)

    def wait(self, seconds: float) -> None:
        """At most so long."""
        messages = self._socket.fileno()
        ready, _, _ = select.select([messages, self._ended], [], [], seconds)
        if self._ended in ready:
            os.read(self._ended, _MESSAGE_BYTES_MAX)
        if messages in ready:
            self.read()

    def read(self) -> None:
        """Messages that wait."""
        while True:
            try:
                data, rights, _, _ = self._socket.recvmsg(_MESSAGE_BYTES_MAX, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return
            files = array.array("i")
            for _, _, content in rights:
                files.frombytes(content)
            self._take(dict(line.partition("=")[::2] for line in data.decode().splitlines()), list(files))

    def handed_over(self, command: list[str]) -> tuple[list[str], list[int], dict[str, str]]:
        """Command, descriptors to pass and environment of a daemon that gets what is held."""
        environment = {**os.environ, "NOTIFY_SOCKET": self._path}
        if not self._files:
            return command, [], environment
        environment["LISTEN_FDNAMES"] = ":".join(self._files)
        files = list(self._files.values())
        return [sys.executable, "-SE", __file__, ",".join(map(str, files)), *command], files, environment

    def _take(self, said: dict[str, str], files: list[int]) -> None:
        name = said.get("FDNAME", "")
        if "FDSTOREREMOVE" in said and name in self._files:
            os.close(self._files.pop(name))
        if "FDSTORE" in said and files and name not in self._files:
            self._files[name] = files.pop()
        for file in files:
            os.close(file)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that the signal wakes."""


def _become(files: list[int], command: list[str]) -> None:
    beyond = _FIRST + len(files)
    raised = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, beyond) for file in files]
    for file in files:
        os.close(file)
    for number, file in enumerate(raised, _FIRST):
        os.dup2(file, number)
    os.environ |= {"LISTEN_FDS": str(len(files)), "LISTEN_PID": str(os.getpid())}
    os.execvp(command[0], command)  # noqa: S606 no shell is the point


if __name__ == "__main__":
    _become([int(word) for word in sys.argv[1].split(",")], sys.argv[2:])
