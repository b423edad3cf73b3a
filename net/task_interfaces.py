"""Interfaces of tasks: a namespace and a veth pair each, made in a few netlink round trips.

A task has its address as a /32, one permanent neighbour (the link-local gateway) and a default route to it;
the host has a route to the /32 and a permanent neighbour: neither side ever asks by ARP.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from net import link_messages as links
from net import route_messages as routes
from net.address_messages import SCOPE_GLOBAL, Address, new_address
from net.addresses import GATEWAY_ADDRESS, GATEWAY_MAC, task_interface, task_mac
from net.differences import INTERFACE, Difference, of_kind
from net.errors import KernelRefused, NetworkError
from net.link_messages import LinkBrief
from net.model import LocalTask
from net.namespaces import is_namespace, make_namespace, remove_namespace, within_namespace
from net.netlink import PROTOCOL_ROUTE, Netlink, Request
from net.route_messages import ROUTE_UNICAST, TABLE_MAIN, Neighbour, Route

log = logging.getLogger(__name__)

# Directly after an address: the default route through the link-local gateway, wherever that is.
_DEFAULT = "0.0.0.0/0"
_MOUNTED_FOLDER = "netns"


class TaskInterfaces:
    """Not safe for several threads at once. `prefix` begins the names of all interfaces."""

    def __init__(self, run_folder: Path, prefix: str) -> None:
        self._folder = run_folder / _MOUNTED_FOLDER
        self._prefix = prefix
        self._netlink = Netlink(PROTOCOL_ROUTE)
        self._ipv6 = Path("/proc/net/if_inet6").exists()

    def close(self) -> None:
        self._netlink.close()

    def path(self, task_id: str) -> Path:
        if not task_id or "/" in task_id or task_id.startswith("."):
            raise NetworkError(f"task id {task_id!r} cannot be a file name")
        return self._folder / task_id

    def create(self, task_id: str, address: str, mtu_bytes: int, source: str) -> Path:
        """Makes what is missing of a task's network; on an error nothing of it is left behind.

        `source` is the address that the host itself uses towards the task. Raises KernelRefused.
        """
        path = self.path(task_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = task_interface(self._prefix, task_id)
        fresh = not is_namespace(path)
        # The host's end comes up last of all: where it is up, only what the host knows of it can be missing.
        if not fresh and self._is_up(name):
            if not self._has_route(name, address):
                self._set_up_host(name, task_id, address, source)
            return path
        try:
            if fresh:
                self._remove_link(name)
                inside = make_namespace(path, lambda: Netlink(PROTOCOL_ROUTE))
            else:
                inside = within_namespace(path, lambda: Netlink(PROTOCOL_ROUTE))
            with inside:
                self._connect(path, name, address, mtu_bytes)
                self._set_up_inside(inside, address)
            self._set_up_host(name, task_id, address, source)
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
        by_device = {route.device: route.destination.split("/")[0] for route in self._task_routes()}
        numbers = {link.name: link.number for link in self._links()}
        found = {}
        for path in self._files():
            if is_namespace(path):
                number = numbers.get(task_interface(self._prefix, path.name), 0)
                found[path.name] = by_device.get(number, "")
        return found

    def mend(self, tasks: Sequence[LocalTask], mtu_bytes: int, source: str) -> list[str]:
        """Makes lost interfaces and routes of existing namespaces anew; returns which, in words."""
        present = self.addresses()
        lost = [task for task in tasks if present.get(task.task_id, task.address) != task.address]
        for task in lost:
            self.create(task.task_id, task.address, mtu_bytes, source)
        return [*of_kind(INTERFACE, (f"lost interface of task {task.task_id}" for task in lost))]

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

    def _task_routes(self) -> list[Route]:
        found = (routes.read_route(answer) for answer in self._netlink.dump(routes.list_routes()))
        return [
            route
            for route in found
            if route is not None and route.table == TABLE_MAIN and route.destination.endswith("/32")
        ]

    def _is_up(self, name: str) -> bool:
        answer = self._netlink.get(links.get_link(name))
        return answer is not None and links.read_link(answer).up

    def _has_route(self, name: str, address: str) -> bool:
        number = socket.if_nametoindex(name)
        return any(route.device == number and route.destination == f"{address}/32" for route in self._task_routes())

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

    def _set_up_inside(self, inside: Netlink, address: str) -> None:
        answer = inside.get(links.get_link("eth0"))
        if answer is None:
            raise NetworkError(f"the task's end of the interface for {address} vanished while it was set up")
        number = links.read_link(answer).number
        _ask_all(
            inside,
            [
                links.set_link(1, "lo"),
                links.set_link(number, "eth0"),
                new_address(Address(address, SCOPE_GLOBAL, number)),
                routes.new_neighbour(Neighbour(number, GATEWAY_ADDRESS, GATEWAY_MAC)),
                routes.new_route(Route(TABLE_MAIN, _DEFAULT, ROUTE_UNICAST, GATEWAY_ADDRESS, number, "")),
            ],
        )

    def _set_up_host(self, name: str, task_id: str, address: str, source: str) -> None:
        number = socket.if_nametoindex(name)
        settings = {
            links.CONF_FORWARDING: 1,
            links.CONF_SEND_REDIRECTS: 0,
            # The ruleset checks sources, whatever this host's rp_filter is.
            links.CONF_REVERSE_PATH_FILTER: 0,
            links.CONF_ROUTE_LOCALNET: 1,
        }
        quiet = [links.without_ipv6_address(number, name)] if self._ipv6 else []
        _ask_all(
            self._netlink,
            [
                *quiet,
                links.set_link(number, name, alias=task_id, settings=settings),
                routes.new_neighbour(Neighbour(number, address, task_mac(address))),
                routes.new_route(Route(TABLE_MAIN, f"{address}/32", ROUTE_UNICAST, "", number, source)),
            ],
        )

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
