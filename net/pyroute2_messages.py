"""The message classes of pyroute2 that we use, as a codec only: sockets and loops are ours (`net/netlink.py`).

`import pyroute2` runs the whole library (its database, IPVS, 9P, ...) and adds 8.4 MB to fairwayd. The classes need
none of that, so they are imported under a bare package of that name, which is taken away again: 1.6 MB and 50 ms. Who
imports pyroute2 afterwards gets all of it, as ever.

Encoding or decoding a message takes 0.05 to 0.3 ms, by hand 0.004 to 0.05: pyroute2 is for what is few (the tunnel's
link, addresses, rules, nftables tables, chains and sets), our own packing for what comes in thousands or for every
container (`route_messages`, `link_messages`, `nft_messages`).
"""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any, ClassVar

from net.netlink import Answer

_PACKAGE = "pyroute2"
_HEADER_BYTES = 16


@contextmanager
def _without_the_rest() -> Iterator[None]:
    """Lets submodules be imported while the package's own `__init__` is not run."""
    found = importlib.util.find_spec(_PACKAGE) if _PACKAGE not in sys.modules else None
    if found is None:
        yield
        return
    bare = ModuleSpec(_PACKAGE, None, is_package=True)
    bare.submodule_search_locations = found.submodule_search_locations
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(bare)
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


with _without_the_rest():
    from pyroute2.netlink import rtnl
    from pyroute2.netlink.marshal import Marshal
    from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
    from pyroute2.netlink.nfnetlink import nftsocket as nft
    from pyroute2.netlink.rtnl import fibmsg as rules
    from pyroute2.netlink.rtnl import rt_type
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = [
    "NFNL_SUBSYS_NFTABLES",
    "LinkEvents",
    "attributes",
    "decode",
    "encode",
    "fibmsg",
    "ifaddrmsg",
    "ifinfmsg",
    "ndmsg",
    "nft",
    "rt_type",
    "rtmsg",
    "rtnl",
    "rules",
]


class LinkEvents(Marshal):  # type: ignore[misc]  # pyroute2 has no types
    """Decodes rtnetlink notifications; of the kinds that are subscribed to only."""

    msg_map: ClassVar[dict[int, Any]] = {
        rtnl.RTM_NEWLINK: ifinfmsg,
        rtnl.RTM_DELLINK: ifinfmsg,
        rtnl.RTM_NEWADDR: ifaddrmsg,
        rtnl.RTM_DELADDR: ifaddrmsg,
        rtnl.RTM_NEWROUTE: rtmsg,
        rtnl.RTM_DELROUTE: rtmsg,
        rtnl.RTM_NEWNEIGH: ndmsg,
        rtnl.RTM_DELNEIGH: ndmsg,
        rtnl.RTM_NEWRULE: fibmsg,
        rtnl.RTM_DELRULE: fibmsg,
    }


def attributes(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """A nest, as pyroute2 takes it."""
    return {"attrs": list(pairs)}


def encode(kind: type[Any], pairs: Sequence[tuple[str, Any]] = (), **fields: int) -> bytes:
    """A message's header fields and attributes, without the netlink header (that is `Netlink`'s)."""
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(pairs)
    message.encode()
    return bytes(message.data[_HEADER_BYTES:])


def decode(kind: type[Any], answer: Answer) -> Any:
    """What the kernel answered, as a message of pyroute2."""
    header = struct.pack("=IHHII", _HEADER_BYTES + len(answer.body), answer.kind, 0, 0, 0)
    message = kind(header + answer.body)
    message.decode()
    return message
