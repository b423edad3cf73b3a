"""The VXLAN device and what is read of a link in full, by pyroute2's classes: a few messages per check."""

from __future__ import annotations

from typing import Any, NamedTuple

from net.netlink import CREATE, EXCLUSIVE, Answer, Request
from net.pyroute2_messages import attributes, decode, encode, ifinfmsg, rtnl

ANY = ("0.0.0.0", "::")  # noqa: S104  # by whether it is IPv6
_UP = 1


class Link(NamedTuple):
    """A link as it is; VXLAN fields are 0 or empty where it is of another kind."""

    number: int
    name: str
    up: bool
    mac: str
    mtu_bytes: int
    kind: str
    vxlan_id: int
    vxlan_port: int
    vxlan_local: str
    vxlan_learning: bool
    settings: dict[int, int]  # per-device IPv4 settings by CONF_ number (net/link_messages.py)


def new_vxlan(name: str, vxlan_id: int, port: int, local: str, mac: str, mtu_bytes: int) -> Request:
    """A VXLAN device without learning and without a default destination: unknown frames go nowhere."""
    device = attributes(
        ("IFLA_VXLAN_ID", vxlan_id),
        ("IFLA_VXLAN_LOCAL6" if ":" in local else "IFLA_VXLAN_LOCAL", local),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_PORT", port),
    )
    body = encode(
        ifinfmsg,
        [
            ("IFLA_IFNAME", name),
            ("IFLA_ADDRESS", mac),
            ("IFLA_MTU", mtu_bytes),
            ("IFLA_LINKINFO", attributes(("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", device))),
        ],
    )
    asked = f"make VXLAN device {name} (id {vxlan_id}, UDP port {port})"
    return Request(rtnl.RTM_NEWLINK, CREATE | EXCLUSIVE, body, asked)


def set_vxlan_local(number: int, name: str, vxlan_id: int, local: str, *, ipv6: bool) -> Request:
    """Changes a device's own address while it works; empty: any of the host's, of the family that it was made for."""
    pair = ("IFLA_VXLAN_LOCAL6" if ipv6 else "IFLA_VXLAN_LOCAL", local or ANY[ipv6])
    data = attributes(("IFLA_VXLAN_ID", vxlan_id), pair)
    information = attributes(("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data))
    body = encode(ifinfmsg, [("IFLA_LINKINFO", information)], index=number)
    return Request(rtnl.RTM_NEWLINK, 0, body, f"set the local address of {name} to {local or 'any'}")


def read_link(answer: Answer) -> Link:
    """Decodes all of a link: 0.3 ms."""
    message = decode(ifinfmsg, answer)
    information = message.get_attr("IFLA_LINKINFO")
    kind = (information.get_attr("IFLA_INFO_KIND") if information else None) or ""
    data = information.get_attr("IFLA_INFO_DATA") if kind == "vxlan" else None

    def of_vxlan(name: str) -> Any:
        return data.get_attr(f"IFLA_VXLAN_{name}") if data else None

    return Link(
        number=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        up=bool(message["flags"] & _UP),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu_bytes=message.get_attr("IFLA_MTU") or 0,
        kind=kind,
        vxlan_id=of_vxlan("ID") or 0,
        vxlan_port=of_vxlan("PORT") or 0,
        vxlan_local=of_vxlan("LOCAL") or of_vxlan("LOCAL6") or "",
        vxlan_learning=bool(of_vxlan("LEARNING")),
        settings=_read_settings(message),
    )


def _read_settings(message: Any) -> dict[int, int]:
    """pyroute2 names the settings in the kernel's order; its field `dummy`, the header, stands at 0."""
    specification = message.get_attr("IFLA_AF_SPEC")
    found = specification.get_attr("AF_INET") if specification else None
    if not found:
        return {}
    return {number: found[name] for number, (name, _) in enumerate(found.fields) if number and name in found}
