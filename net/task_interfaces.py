"""Interfaces of tasks: a namespace and a veth pair each, made in a few netlink round trips.

A task has its address as a /32, one permanent neighbour (the link-local gateway) and a default route to it;
the host has a route to the /32 and a permanent neighbour: neither side ever asks by ARP. Its IPv6 address, a /128, has
the same; no router advertisement or duplicate address detection is waited for.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from net import ipv6_support
from net import link_messages as links
from net import route_messages as routes
from net.address_messages import SCOPE_GLOBAL, SCOPE_LINK, Address, new_address
from net.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_ADDRESS_IPV6,
    GATEWAY_MAC,
    ipv6_of,
    task_interface,
    task_mac,
)
from net.differences import INTERFACE, Difference, of_kind
from net.errors import KernelRefused, NetworkError
from net.link_messages import LinkBrief
from net.model import LocalTask
from net.namespaces import is_namespace, make_namespace, remove_namespace, within_namespace
from net.netlink import PROTOCOL_ROUTE, Netlink, Request
from net.route_messages import ROUTE_UNICAST, TABLE_MAIN, Neighbour, Route

log = logging.getLogger(__name__)

# Directly after an address: the default route through the link-local gateway, wherever that is.
_DEFAULT, _DEFAULT_IPV6 = "0.0.0.0/0", "::/0"
_MOUNTED_FOLDER = "netns"
# Of a task's interface: no link-local address of its own, which nothing needs, and no router but ours.
_INSIDE_IPV6 = (("addr_gen_mode", 1), ("accept_ra", 0), ("accept_dad", 0))


class Surroundings(NamedTuple):
    """What all tasks of a host share."""

    mtu_bytes: int
    source: str  # the address that the host itself uses towards tasks
    ipv6_prefix: str  # empty: tasks have no IPv6 address


class TaskInterfaces:
    """Not safe for several threads at once. `prefix` begins the names of all interfaces."""

    def __init__(self, run_folder: Path, prefix: str) -> None:
        self._folder = run_folder / _MOUNTED_FOLDER
        self._prefix = prefix
        self._netlink = Netlink(PROTOCOL_ROUTE)
        self._has_ipv6 = ipv6_support.is_there()

    def close(self) -> None:
        self._netlink.close()

    def path(self, task_id: str) -> Path:
        if not task_id or "/" in task_id or task_id.startswith("."):
            raise NetworkError(f"task id {task_id!r} cannot be a file name")
        return self._folder / task_id

    def create(
        self, task_id: str, address: str, around: Surroundings, make: Callable[[Path], None] | None = None
    ) -> Path:
        """Makes what is missing of a task's network; on an error nothing of it is left behind. Raises NetworkError."""
        path = self.path(task_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = task_interface(self._prefix, task_id)
        fresh = not is_namespace(path)
        # The host's end comes up last of all: where it is up, only what the host knows of it can be missing.
        if not fresh and self._is_up(name):
            if not self._has_routes(name, address, around.ipv6_prefix):
                self._set_up_host(name, task_id, address, around)
            return path
        try:
            if fresh:
                self._remove_link(name)
            if fresh and make is None:
                inside = make_namespace(path, self._enter)
            else:
                if fresh and make is not None:
                    make(path)
                inside = within_namespace(path, self._enter)
            with inside:
                self._connect(path, name, address, around.mtu_bytes)
                self._set_up_inside(inside, address, around.ipv6_prefix)
            self._set_up_host(name, task_id, address, around)
        except BaseException:
            if fresh:
                self._discard(task_id)
            raise
        return path

    def delete(self, task_id: str) -> None:
        """Takes a task's network away; repeatable."""
        path = self.path(task_id)
        self._remove_link(task_interface(self._prefix, task_id))
        remove_namespace(path)

    def addresses(self) -> dict[str, str]:
        """Task id -> address of every task network on this host; "" where its interface is gone."""
        by_device = {route.device: route.destination.split("/")[0] for route in self._task_routes(socket.AF_INET)}
        numbers = {link.name: link.number for link in self._links()}
        found = {}
        for path in self._files():
            if is_namespace(path):
                number = numbers.get(task_interface(self._prefix, path.name), 0)
                found[path.name] = by_device.get(number, "")
        return found

    def mend(self, tasks: Sequence[LocalTask], around: Surroundings) -> list[str]:
        """Makes lost interfaces and routes of existing namespaces anew; returns which, in words."""
        present = self.addresses()
        prefix = around.ipv6_prefix
        routed = {route.destination for route in self._task_routes(socket.AF_INET6)} if prefix else set()
        lost = []
        for task in tasks:
            known = present.get(task.task_id)
            routeless = prefix and f"{ipv6_of(prefix, task.address)}/128" not in routed
            if known is not None and (known != task.address or routeless):
                lost.append(task)
                self.create(task.task_id, task.address, around)
        return list(of_kind(INTERFACE, (f"lost interface of task {task.task_id}" for task in lost)))

    def clean(self) -> list[str]:
        """Removes interfaces and files that belong to no task any more; returns what, in words."""
        stale = {link.name: link for link in self._links() if link.kind == "veth" and self._is_ours(link.name)}
        words: list[str] = []
        for path in self._files():
            if is_namespace(path):
                stale.pop(task_interface(self._prefix, path.name), None)
            else:
                path.unlink(missing_ok=True)
        for name, link in stale.items():
            self._netlink.ask(links.delete_link(link.number, name))
            words.append(Difference(INTERFACE, f"stale interface {name}"))
        return words

    def _is_ours(self, name: str) -> bool:
        return name.startswith(f"{self._prefix}t") and len(name) == 15

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.is_file()]
        except FileNotFoundError:
            return []

    def _links(self) -> list[LinkBrief]:
        return [links.read_link(answer) for answer in self._netlink.dump(links.list_links())]

    def _task_routes(self, family: socket.AddressFamily) -> list[Route]:
        found = (routes.read_route(answer) for answer in self._netlink.dump(routes.list_routes(family)))
        return [
            route
            for route in found
            if route is not None and route.table == TABLE_MAIN and route.destination.endswith(("/32", "/128"))
        ]

    def _is_up(self, name: str) -> bool:
        answer = self._netlink.get(links.get_link(name))
        return answer is not None and links.read_link(answer).up

    def _has_routes(self, name: str, address: str, ipv6_prefix: str) -> bool:
        number = socket.if_nametoindex(name)
        wanted = [(socket.AF_INET, f"{address}/32")]
        if ipv6_prefix:
            wanted.append((socket.AF_INET6, f"{ipv6_of(ipv6_prefix, address)}/128"))
        return all(
            any(route.device == number and route.destination == destination for route in self._task_routes(family))
            for family, destination in wanted
        )

    def _enter(self) -> Netlink:
        """Runs in a task's namespace, before its interface is there to take these settings over."""
        if self._has_ipv6:
            for name, value in _INSIDE_IPV6:
                ipv6_support.write_setting("default", name, value)
        return Netlink(PROTOCOL_ROUTE)

    def _connect(self, path: Path, name: str, address: str, mtu_bytes: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            request = links.new_veth(name, GATEWAY_MAC, task_mac(address), mtu_bytes, descriptor)
            try:
                self._netlink.ask(request)
            except KernelRefused as error:
                if error.code != errno.EEXIST:
                    raise
                # Half made, or with another address: the pair is made anew, the namespace is kept.
                self._remove_link(name)
                self._netlink.ask(request)
        finally:
            os.close(descriptor)

    def _set_up_inside(self, inside: Netlink, address: str, ipv6_prefix: str) -> None:
        answer = inside.get(links.get_link("eth0"))
        if answer is None:
            raise NetworkError(f"the task's end of the interface for {address} vanished while it was set up")
        number = links.read_link(answer).number
        requests = [
            links.set_link(1, "lo"),
            links.set_link(number, "eth0"),
            new_address(Address(address, SCOPE_GLOBAL, number)),
            routes.new_neighbour(Neighbour(number, GATEWAY_ADDRESS, GATEWAY_MAC)),
            routes.new_route(Route(TABLE_MAIN, _DEFAULT, ROUTE_UNICAST, GATEWAY_ADDRESS, number, "")),
        ]
        if ipv6_prefix:
            requests += [
                new_address(Address(ipv6_of(ipv6_prefix, address), SCOPE_GLOBAL, number)),
                routes.new_neighbour(Neighbour(number, GATEWAY_ADDRESS_IPV6, GATEWAY_MAC)),
                routes.new_route(Route(TABLE_MAIN, _DEFAULT_IPV6, ROUTE_UNICAST, GATEWAY_ADDRESS_IPV6, number, "")),
            ]
        _ask_all(inside, requests)

    def _set_up_host(self, name: str, task_id: str, address: str, around: Surroundings) -> None:
        number = socket.if_nametoindex(name)
        settings = {
            links.CONF_FORWARDING: 1,
            links.CONF_SEND_REDIRECTS: 0,
            # The ruleset checks sources, whatever this host's rp_filter is.
            links.CONF_REVERSE_PATH_FILTER: 0,
            links.CONF_ROUTE_LOCALNET: 1,
        }
        mac, source, prefix = task_mac(address), around.source, around.ipv6_prefix
        requests = [links.without_ipv6_address(number, name)] if ipv6_support.is_on(name) else []
        requests += [
            links.set_link(number, name, alias=task_id, settings=settings),
            routes.new_neighbour(Neighbour(number, address, mac)),
            routes.new_route(Route(TABLE_MAIN, f"{address}/32", ROUTE_UNICAST, "", number, source)),
        ]
        if prefix:
            ipv6_support.turn_on(name)
            ipv6_support.write_setting(name, "accept_ra", 0)
            ipv6, ipv6_source = ipv6_of(prefix, address), ipv6_of(prefix, source)
            requests += [
                new_address(Address(GATEWAY_ADDRESS_IPV6, SCOPE_LINK, number)),
                routes.new_neighbour(Neighbour(number, ipv6, mac)),
                routes.new_route(Route(TABLE_MAIN, f"{ipv6}/128", ROUTE_UNICAST, "", number, ipv6_source)),
            ]
        _ask_all(self._netlink, requests)

    def _remove_link(self, name: str) -> None:
        answer = self._netlink.get(links.get_link(name))
        if answer is None:
            return
        try:
            self._netlink.ask(links.delete_link(links.read_link(answer).number, name))
        except KernelRefused as error:
            if error.code != errno.ENODEV:
                raise

    def _discard(self, task_id: str) -> None:
        steps: list[Callable[[], None]] = [
            lambda: self._remove_link(task_interface(self._prefix, task_id)),
            lambda: remove_namespace(self.path(task_id)),
        ]
        for step in steps:
            try:
                step()
            except NetworkError as error:
                log.warning("clean up after the failed network of task %s: %s", task_id, error)


def _ask_all(netlink: Netlink, requests: Sequence[Request]) -> None:
    for _, error in netlink.ask_all(requests):
        raise error
