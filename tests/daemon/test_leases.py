"""Leases: unique, in range, and refused in words when a pool is exhausted."""

from __future__ import annotations

import ipaddress

import pytest

from daemon.errors import Kind, Refused
from daemon.orchestration.leases import LeasePool, PortLease, allocate_host_block, allocate_node_ordinal, port_of_lease
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel


def keep(store: Store, *leases: objects.Lease) -> None:
    builder = TransactionBuilder()
    for lease in leases:
        builder.create(lease)
    store.apply(builder.build("r" + leases[0].meta.name, "test", 1), store.revision + 1)


def test_blocks_and_numbers_go_upwards_and_do_not_repeat_what_was_just_freed() -> None:
    store = ClusterModel(0).store
    blocks, leases = [], []
    for number in range(3):
        lease, block = allocate_host_block(store, f"n{number}")
        ordinal_lease, ordinal = allocate_node_ordinal(store, f"n{number}")
        assert ordinal == number + 1
        keep(store, lease, ordinal_lease)
        blocks.append(block)
        leases.append(lease)
    assert blocks == ["10.112.1.0/24", "10.112.2.0/24", "10.112.3.0/24"]
    freed = store.table(objects.Lease).unique("name", "block/10.112.2.0/24")
    assert freed is not None
    store.apply(TransactionBuilder().delete(freed).build("x", "test", 1), store.revision + 1)
    assert allocate_host_block(store, "n9")[1] == "10.112.4.0/24"


def test_a_block_is_handed_out_to_its_last_address_and_then_refused() -> None:
    model = ClusterModel(1)
    node = next(iter(model.store.table(objects.Node)))
    pool = LeasePool(model.store)
    addresses = [pool.task_address(node, f"task-{number}")[1] for number in range(253)]
    block = ipaddress.ip_network("10.112.1.0/24")
    assert len(set(addresses)) == 253
    assert {"10.112.1.0", "10.112.1.1", "10.112.1.255"}.isdisjoint(addresses)
    assert all(ipaddress.ip_address(address) in block for address in addresses)
    with pytest.raises(Refused) as refused:
        pool.task_address(node, "one-more")
    assert refused.value.kind is Kind.EXHAUSTED
    assert "no address is left on host-1" in refused.value.message


def test_what_the_store_holds_is_not_handed_out_again() -> None:
    model = ClusterModel(1)
    first, address = LeasePool(model.store).vip("service")
    keep(model.store, first)
    assert LeasePool(model.store).vip("service")[1] != address
    wanted = PortLease(("tcp", 80, ""))
    port = LeasePool(model.store).published_port(wanted, "a")
    assert port is not None
    keep(model.store, port)
    assert LeasePool(model.store).published_port(wanted, "b") is None
    assert LeasePool(model.store).published_port(PortLease(("udp", 80, "")), "b") is not None


@pytest.mark.parametrize(
    ("lease", "name"),
    [
        (PortLease(("tcp", 80, "")), "port/tcp/80"),
        (PortLease(("udp", 53, "2001:db8::1")), "port/udp/53/at/2001:db8::1"),
        (PortLease(("tcp", 80, ""), "s1"), "port/tcp/80/host/s1"),
        (PortLease(("tcp", 80, "192.0.2.1"), "s1"), "port/tcp/80/at/192.0.2.1/host/s1"),
    ],
)
def test_the_name_of_a_port_says_which_it_is(lease: PortLease, name: str) -> None:
    assert lease.name == name
    assert port_of_lease(name) == lease


def test_a_freed_address_is_seldom_the_next_one() -> None:
    model = ClusterModel(1)
    node = next(iter(model.store.table(objects.Node)))
    addresses = [LeasePool(model.store).task_address(node, f"t{number}")[1] for number in range(20)]
    assert len(set(addresses)) >= 17


def test_without_blocks_left_the_words_say_what_to_do() -> None:
    model = ClusterModel(0)
    (cluster,) = model.store.table(objects.Cluster)
    small = objects.Cluster()
    small.CopyFrom(cluster)
    small.network.host_pool = "10.112.0.0/23"
    model.apply(TransactionBuilder().update(small))
    pool = LeasePool(model.store)
    pool.host_block("n1")
    with pytest.raises(Refused, match="fairway node rm"):
        pool.host_block("n2")
