"""One host's balancers with 1,000 services of 10 tasks: from nothing, and one change. Run it in a network of its own.

Goes the whole way that a change goes on a host: the leader's delta into the view, the desired network, names, the plan,
and the kernel. Prints JSON, seconds of CPU time each, the kernel's included: another program's turn does not count.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from daemon.agent.host_view import HostView
from daemon.agent.network_view import NetworkView
from net.desired_changes import DesiredIndex
from net.dns_names import NameIndex
from net.kernel import Kernel
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState

SERVICES, BACKENDS, CHANGES = 1_000, 10, 20


def items() -> list[HostItem]:
    """What the leader would tell the host; a tenth of the services publish a port."""
    settings = objects.NetworkSettings(
        host_pool="10.64.0.0/11", vip_pool="10.120.0.0/16", dns_domain="fairway.internal"
    )
    cluster = objects.Cluster(meta=objects.Meta(id="c"), network=settings)
    made = [HostItem(key="cluster/c", cluster=cluster)]
    for number in (1, 2, 3):
        network = objects.NodeNetwork(
            block=f"10.{63 + number}.0.0/16",
            ordinal=number,
            tunnel_address=f"10.{63 + number}.0.1",
            tunnel_mac=f"02:00:00:00:00:0{number}",
        )
        meta = objects.Meta(id=f"n{number}", name=f"host-{number}")
        node = objects.Node(meta=meta, address=f"198.51.100.{number}", network=network)
        made.append(HostItem(key=f"node/n{number}", node=node))
    for number in range(SERVICES):
        meta = objects.Meta(id=f"net{number}", name="default", tenant="default")
        network_item = objects.Network(meta=meta, app=f"app{number}", ordinal=number + 1)
        made.append(HostItem(key=f"network/net{number}", network=network_item))
        published = 20_000 + number if number % 10 == 0 else 0
        frontend = objects.Frontend(
            service_id=f"s{number}",
            service="web",
            app=f"app{number}",
            tenant="default",
            vip=f"10.120.{number // 250}.{number % 250 + 1}",
            ports=[objects.PortSpec(protocol="tcp", target=80, published=published)],
            networks=[f"net{number}"],
        )
        made.append(HostItem(key=f"frontend/s{number}", frontend=frontend))
        made += [endpoint(number, backend) for backend in range(BACKENDS)]
    return made


def endpoint(service: int, backend: int, ready: bool = True) -> HostItem:
    at = service * BACKENDS + backend
    made = objects.Endpoint(
        task_id=f"t{service}-{backend}",
        task_name=f"web.{backend + 1}",
        service_id=f"s{service}",
        node_id=f"n{backend % 2 + 2}",
        address=f"10.{65 + backend % 2}.{at // 250}.{at % 250 + 2}",
        ready=ready,
        networks=[f"net{service}"],
    )
    return HostItem(key=f"endpoint/t{service}-{backend}", endpoint=made)


class Host:
    """All parts of one host that a change of an endpoint goes through."""

    def __init__(self, folder: Path) -> None:
        self.view, self.network_view = HostView(), NetworkView("n1")
        self.index, self.names = DesiredIndex(), NameIndex()
        self.kernel = Kernel("fw", folder / "network.json")

    def apply(self, state: HostState) -> dict[str, float]:
        """Seconds of each step."""
        began = time.thread_time()
        self.view.apply(state)
        desired = self.network_view.desired(self.view)
        assert desired is not None
        viewed = time.thread_time()
        change = self.index.advance(desired)
        self.names.advance(desired, self.index, change)
        named = time.thread_time()
        for problem in self.kernel.apply(desired, self.index, change):
            print(problem, file=sys.stderr)
        done = time.thread_time()
        return {"view": viewed - began, "names": named - viewed, "plan_and_kernel": done - named, "all": done - began}


def measure(folder: Path) -> dict[str, Any]:
    host = Host(folder)
    state = HostState(complete=True, revision=1, put=items())
    gc.collect()
    gc.freeze()
    whole = host.apply(state)
    changes = []
    for number in range(CHANGES):
        service = (number * 37) % SERVICES
        delta = HostState(revision=number + 2, put=[endpoint(service, number % BACKENDS, ready=False)])
        changes.append(host.apply(delta))
    host.kernel.close()
    return {
        "whole": whole,
        "change": {name: statistics.median(each[name] for each in changes) for name in whole},
        "change_all": [each["all"] for each in changes],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder_name:
        print(json.dumps(measure(Path(folder_name))))
