"""Who listens and who is connected in a task's network namespace, asked of the kernel without sending anything.

Messages of the sock_diag family: Linux, include/uapi/linux/inet_diag.h (struct inet_diag_req_v2, inet_diag_msg);
sock_diag(7). Asking for listeners alone walks a small table; /proc/PID/net/tcp walks the host's whole one, which takes
milliseconds each time.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from pathlib import Path

import trio

from net.errors import NetworkError
from net.namespaces import within_namespace

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST_DUMP = 0x001 | 0x300
ESTABLISHED, SYN_RECEIVED, LISTEN = 1, 3, 10
ANSWER_S_MAX = 1.0
_RECEIVE_BYTES = 1 << 16
_REQUEST = struct.Struct("=IHHII BBBBI 48x")
_HEADER = struct.Struct("=IHHII")
_PORT_OFFSET = _HEADER.size + 4  # behind family, state, timer and retransmits; big-endian


class TaskSockets:
    """One namespace; open until `close`. Use it as a context manager."""

    def __init__(self, diagnosis: socket.socket) -> None:
        self._diagnosis = diagnosis
        self._sequence = 0

    @classmethod
    async def of_process(cls, process_id: int) -> TaskSockets:
        """The namespace of a process. Raises NetworkError where it is gone."""
        path = Path(f"/proc/{process_id}/ns/net")
        try:
            return cls(await trio.to_thread.run_sync(within_namespace, path, _open))
        except OSError as error:
            raise NetworkError(f"look at the sockets of process {process_id}: {error.strerror or error}") from error

    @classmethod
    def within(cls, process_id: int) -> TaskSockets:
        """The same, for a thread that may wait. Raises NetworkError, OSError."""
        return cls(within_namespace(Path(f"/proc/{process_id}/ns/net"), _open))

    def __enter__(self) -> TaskSockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat."""
        self._diagnosis.close()

    def listening(self) -> set[int]:
        """TCP ports that are listened on, IPv4 or IPv6; takes about 0.1 ms."""
        return set(self._ports(1 << LISTEN))

    def connected(self) -> set[int]:
        """Those of them that a client is connected to; takes some milliseconds."""
        return self._ports(1 << ESTABLISHED | 1 << SYN_RECEIVED).keys() & self.listening()

    def client_count(self) -> int:
        """Connections of clients: those to ports that are listened on; takes some milliseconds."""
        listening = self.listening()
        return sum(count for port, count in self._ports(1 << ESTABLISHED).items() if port in listening)

    def _ports(self, states: int) -> Counter[int]:
        """Local ports of sockets in these states, and how many have each."""
        found: Counter[int] = Counter()
        for family in (socket.AF_INET, socket.AF_INET6):
            self._sequence += 1
            request = _REQUEST.pack(
                _REQUEST.size,
                SOCK_DIAG_BY_FAMILY,
                REQUEST_DUMP,
                self._sequence,
                0,
                family,
                socket.IPPROTO_TCP,
                0,
                0,
                states,
            )
            self._diagnosis.send(request)
            while not self._take(found):
                pass
        return found

    def _take(self, found: Counter[int]) -> bool:
        """Takes in one datagram of an answer; whether it was the last."""
        data = self._diagnosis.recv(_RECEIVE_BYTES)
        offset = 0
        while offset < len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            if sequence == self._sequence:
                if kind == NLMSG_DONE:
                    return True
                if kind == NLMSG_ERROR:
                    raise NetworkError("the kernel does not tell which ports are listened on: it lacks inet_diag")
                found[struct.unpack_from(">H", data, offset + _PORT_OFFSET)[0]] += 1
            offset += length + 3 & ~3
        return False


def _open() -> socket.socket:
    diagnosis = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    diagnosis.settimeout(ANSWER_S_MAX)
    return diagnosis
