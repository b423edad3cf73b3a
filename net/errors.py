"""What the kernel or the settings refused, in words."""

from __future__ import annotations

import errno
import os


class NetworkError(Exception):
    """Says what was asked of the network, what is wrong and, where it is known, what to do."""


class KernelRefused(NetworkError):
    """The kernel refused a netlink request or a system call; `code` is its errno."""

    def __init__(self, asked: str, code: int, detail: str = "") -> None:
        name = errno.errorcode.get(code, str(code))
        hint = _HINTS.get(code, "")
        said = f": {detail}" if detail else ""
        super().__init__(f"{asked}: the kernel says {name} ({os.strerror(code)}){said}{hint}")
        self.asked = asked
        self.code = code
        self.detail = detail


_HINTS = {
    errno.EPERM: "; fairwayd needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EOPNOTSUPP: "; this kernel lacks the feature: see `fairway status`",
    errno.EADDRINUSE: "; another program holds it: stop that one or choose another port",
}
