"""What the network of one host is to be: plain values, made by the daemon, read by the planners.

Addresses are IPv4 in dotted form, MACs in colon form, pools and blocks in CIDR form; IPv6 addresses are derived from
those (`net/addresses.py`), only a host's own on the underlay may be one. The planners take an object that is the *same*
object as last time as unchanged without looking into it, so who builds a `DesiredNetwork` should keep the parts that
did not change.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from net.policy import Policy


@dataclass(frozen=True, slots=True)
class Encryption:
    """By which keys hosts send to each other, and by which they receive. Epoch 0 is the clear, without keys."""

    sending: int = 0
    receiving: tuple[int, ...] = (0,)  # `sending` among them
    port: int = 51871  # UDP, of even epochs; the next one is of odd ones

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those that need keys and a device."""
        return tuple(epoch for epoch in self.receiving if epoch)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Settings of the whole cluster."""

    host_pool: str  # hosts' blocks are cut from it
    vip_pool: str  # services' virtual addresses come from it
    vxlan_id: int = 4077
    vxlan_port: int = 8472  # UDP, on the underlay
    mtu_bytes: int = 0  # of task interfaces; 0: the underlay's less the tunnel's 50
    trusted_cidrs: tuple[str, ...] = ()  # outside sources that may reach VIPs and tasks directly
    dns_domain: str = "fairway.internal"
    ipv6_prefix: str = ""  # a /96 that every address of ours also lies in; empty: IPv4 only
    encryption: Encryption = Encryption()


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the cluster, as every other host needs to know it."""

    node_id: str
    name: str
    address: str  # on the underlay
    block: str  # of its tasks' addresses
    tunnel_address: str  # the first address of its block
    tunnel_mac: str
    ordinal: int  # 1..65535, unique in the cluster: its connection mark and return table
    zone: str = ""  # of the local host: who is near
    keys: tuple[tuple[int, bytes], ...] = ()  # (epoch, public key) that it receives by
    other_addresses: tuple[str, ...] = ()  # of its interfaces: its packets may come from them


@dataclass(frozen=True, slots=True)
class Port:
    protocol: str  # "tcp", "udp" or "sctp"
    target: int  # in the container
    published: int = 0  # on every host; 0: not published
    address: str = ""  # published on hosts that have this address, at it; empty: on every address of every host
    host_mode: bool = False  # published on hosts with a task of the service only, and leads to that task
    name: str = ""  # for SRV records


@dataclass(frozen=True, slots=True)
class Balance:
    """How a service's connections are spread over its ready endpoints."""

    policy: str = "random"  # or "round-robin", "weighted", "source-hash", "least-loaded"
    local_first: bool = False  # those on the same host while there are any, then those in the same zone


@dataclass(frozen=True, slots=True)
class Frontend:
    """A service as balancers and DNS see it. All ports of the VIP lead to the same port of a task."""

    service_id: str
    service: str
    app: str
    tenant: str
    vip: str  # empty: none; DNS then answers the addresses of ready tasks
    ports: tuple[Port, ...] = ()
    networks: tuple[str, ...] = ()  # ids
    aliases: tuple[tuple[str, str], ...] = ()  # (network id, further name, known within that network only)
    balance: Balance = Balance()
    labels: tuple[tuple[str, str], ...] = ()  # what policies may select by
    policy: Policy | None = None  # of its own, beside those that are applied apart


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A task as balancers and DNS see it."""

    task_id: str
    task_name: str  # SERVICE.SLOT
    service_id: str
    node_id: str
    address: str
    ready: bool  # False: gets no new connections, keeps its established TCP connections
    networks: tuple[str, ...] = ()  # ids
    weight: int = 1  # its share where the policy weighs
    zone: str = ""  # of its host


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    network_id: str
    ordinal: int  # 1.., unique in the cluster
    name: str
    app: str
    tenant: str
    internal: bool = False  # no way out of the cluster
    ipv6_disabled: bool = False  # members do not reach each other by IPv6 within it
    closed: bool = False  # members reach each other only where a policy says so


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A task that has, or is about to have, an interface on this host."""

    task_id: str
    address: str
    networks: tuple[str, ...] = ()  # ids
    dns_servers: tuple[str, ...] = ()  # asked for its names from outside; empty: the host's
    service_id: str = ""


@dataclass(frozen=True, slots=True)
class DesiredNetwork:
    """All that one host needs to know."""

    config: NetworkConfig
    local: Host
    hosts: tuple[Host, ...] = ()  # with or without the local one
    frontends: tuple[Frontend, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    networks: tuple[NetworkInfo, ...] = ()
    tasks: tuple[LocalTask, ...] = ()
    policies: tuple[Policy, ...] = ()


@dataclass(slots=True)
class Counters:
    """What happened since the daemon started; all count up."""

    apply_count: int = 0
    apply_failure_count: int = 0
    drift_count: int = 0  # differences between kernel and desired state that were found and repaired
    check_count: int = 0
    check_failure_count: int = 0
    connections_forgotten_count: int = 0  # requests to the kernel to forget connections to a removed task
    dns_query_count: int = 0
    dns_forwarded_count: int = 0
    dns_refused_count: int = 0  # over a limit: too many at once
    dns_failure_count: int = 0
    dns_stale_count: int = 0  # answers beyond their time, given because no upstream server answered
    last_drift: tuple[str, ...] = field(default=())  # in words, at most 20
    drift_by_kind: dict[str, int] = field(default_factory=dict)  # kinds: net/differences.py
    recent_drift: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=50))  # (Unix s, words)
