"""What the kernel has of one task's network: both ends of its interface, addresses, routes, listeners; read only."""

from __future__ import annotations

from pathlib import Path

from net import link_messages as links
from net import route_messages as routes
from net.address_messages import list_addresses, read_address
from net.addresses import task_interface, task_mac
from net.errors import NetworkError
from net.listeners import listeners
from net.namespaces import is_namespace, within_namespace
from net.netlink import PROTOCOL_ROUTE, Netlink
from net.route_lookup import look_up
from proto.doctor_pb2 import TaskEnd

_FOLDER = "netns"
_SOMEWHERE = "192.0.2.1"  # outside of everything (RFC 5737): what has no other route


def namespace_of(run_folder: Path, task_id: str) -> Path:
    """The file that keeps a task's network namespace (net/task_interfaces.py)."""
    return run_folder / _FOLDER / task_id


def look_at(run_folder: Path, prefix: str, task_id: str, address: str, protocol: str) -> TaskEnd:
    """Blocking, some milliseconds. What cannot be looked at is said in `error`."""
    path = namespace_of(run_folder, task_id)
    end = TaskEnd(known=True, address=address, interface=task_interface(prefix, task_id))
    end.namespace_there = is_namespace(path)
    try:
        with Netlink(PROTOCOL_ROUTE) as netlink:
            _look_at_host_end(netlink, end)
        if end.namespace_there:
            within_namespace(path, lambda: _look_inside(end, protocol))
    except (NetworkError, OSError) as error:
        end.error = str(error)
    return end


def _look_at_host_end(netlink: Netlink, end: TaskEnd) -> None:
    answer = netlink.get(links.get_link(end.interface))
    if answer is None:
        return
    link = links.read_link(answer)
    end.interface_there, end.interface_up = True, link.up
    end.route_to_task = look_up(netlink, end.address).device == end.interface
    for each in netlink.dump(routes.list_neighbours(link.number)):
        neighbour = routes.read_neighbour(each)
        if neighbour is not None and neighbour.address == end.address:
            end.neighbour_right = neighbour.mac == task_mac(end.address)


def _look_inside(end: TaskEnd, protocol: str) -> None:
    with Netlink(PROTOCOL_ROUTE) as netlink:
        answer = netlink.get(links.get_link("eth0"))
        if answer is not None:
            link = links.read_link(answer)
            end.inside_up = link.up
            for each in netlink.dump(list_addresses()):
                address = read_address(each)
                if address is not None and address.device == link.number:
                    end.addresses_inside.append(address.address)
            end.default_route_inside = look_up(netlink, _SOMEWHERE).device == "eth0"
    end.listeners.extend(listeners(protocol))
