"""A new cluster: what it begins with, and which settings are refused."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest

from daemon.config import Config, ResourcesConfig
from daemon.errors import Refused
from daemon.identity import tokens
from daemon.identity.authority import open_authority
from daemon.identity.certificates import (
    PeerIdentity,
    PeerKind,
    ca_fingerprint,
    certificate_der,
    load_certificate,
    parse_peer,
)
from daemon.identity.host_description import (
    architecture,
    cgroup_version,
    describe_host,
    operating_system,
    reservable_memory_bytes,
)
from daemon.identity.initialise import initialise
from daemon.identity.network_settings import complete, unique_local_prefix
from daemon.identity.node_names import labels_error, node_name_error, node_name_from_hostname
from daemon.identity.own_address import is_own_address
from daemon.identity.places import parse_place
from daemon.identity.sealing import new_key
from net.addresses import tunnel_mac
from proto import control_pb2
from proto import objects_pb2 as objects
from tests.daemon.small_cluster import SmallCluster, config_in, now_unix_ms


def test_what_a_cluster_begins_with(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    (stored,) = cluster.store.table(objects.Cluster)
    assert stored.meta.id == cluster.reply.cluster_id
    assert stored.network.host_pool == "10.112.0.0/13"
    assert stored.network.vip_pool == "10.120.0.0/16"
    assert stored.network.dns_domain == "fairway.internal"
    (tenant,) = cluster.store.table(objects.Tenant)
    assert tenant.meta.name == "default"
    (node,) = cluster.store.table(objects.Node)
    assert (node.meta.id, node.voter, node.role) == (cluster.reply.node_id, True, objects.NODE_ROLE_VOTER)
    assert (node.api_port, node.raft_port, node.join_port) == (7443, 7444, 7445)
    assert node.network.ordinal == 1
    block = ipaddress.ip_network(node.network.block)
    assert node.network.tunnel_address == str(block.network_address + 1)
    assert node.network.tunnel_mac == tunnel_mac(node.meta.id)
    held = {lease.meta.name for lease in cluster.store.table(objects.Lease).by("holder", node.meta.id)}
    assert held == {f"block/{block}", "ordinal/node/1"}
    assert node.certificate_expires_unix_ms > now_unix_ms() + 89 * 86_400_000


def test_the_reply_is_enough_for_an_operator_and_for_hosts(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    reply = cluster.reply
    ca = load_certificate(reply.ca_certificate_pem)
    operator = load_certificate(reply.operator_certificate_pem)
    peer = parse_peer(certificate_der(operator), reply.cluster_id)
    assert peer == PeerIdentity(PeerKind.OPERATOR, "admin")
    assert reply.address == "127.0.0.1:7443"
    for text, role in (
        (reply.voter_token, objects.NODE_ROLE_VOTER),
        (reply.worker_token, objects.NODE_ROLE_WORKER),
    ):
        parsed = tokens.parse(text)
        token = cluster.store.get(objects.JoinToken, parsed.token_id)
        assert token is not None
        assert token.role == role
        assert tokens.check(token, parsed.secret, now_unix_ms() + 23 * 3_600_000) is None
        assert tokens.check(token, parsed.secret, now_unix_ms() + 25 * 3_600_000) is not None
        assert parsed.ca_sha256 == ca_fingerprint(ca)


def test_the_ca_opens_with_the_cluster_key_only(tmp_path: Path) -> None:
    cluster = SmallCluster(tmp_path)
    (stored,) = cluster.store.table(objects.Cluster)
    assert open_authority(stored, cluster.identity.cluster_key).certificate == cluster.identity.ca_certificate
    with pytest.raises(Refused, match="not the one it was sealed with"):
        open_authority(stored, new_key())
    with pytest.raises(Refused, match="only voters sign"):
        open_authority(stored, None)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (control_pb2.InitialiseRequest(address="here"), "not an IP address"),
        (control_pb2.InitialiseRequest(address="192.0.2.77"), "not an address of this host"),
        (control_pb2.InitialiseRequest(address="127.0.0.1", node_name="No Name"), "lower-case"),
        (control_pb2.InitialiseRequest(address="127.0.0.1", cluster_name="No Name"), "cluster's name"),
        (control_pb2.InitialiseRequest(address="127.0.0.1", labels={"a b": "c"}), "label 'a b'"),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, request_: control_pb2.InitialiseRequest, words: str) -> None:
    with pytest.raises(Refused, match=words):
        initialise(config_in(tmp_path), request_, objects.NodeDescription(), now_unix_ms(), tunnel_mac)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("chosen", "address", "words"),
    [
        (objects.NetworkSettings(host_pool="10.112.0.0"), "192.0.2.1", "/4 to /28"),
        (objects.NetworkSettings(host_pool="10.112.0.1/13"), "192.0.2.1", "has host bits set"),
        (objects.NetworkSettings(host_pool="x"), "192.0.2.1", "not an IPv4 network"),
        (objects.NetworkSettings(host_pool="fd00::/16"), "192.0.2.1", "not an IPv4 network"),
        (objects.NetworkSettings(host_pool="127.0.0.0/13"), "192.0.2.1", "private network"),
        (objects.NetworkSettings(host_prefix_bits=13), "192.0.2.1", "cannot be cut"),
        (objects.NetworkSettings(host_prefix_bits=31), "192.0.2.1", "cannot be cut"),
        (objects.NetworkSettings(vip_pool="10.113.0.0/16"), "192.0.2.1", "overlap"),
        (objects.NetworkSettings(), "10.115.0.1", "lies in the host pool"),
        (objects.NetworkSettings(), "10.120.0.1", "lies in the VIP pool"),
        (objects.NetworkSettings(vxlan_id=1 << 24), "192.0.2.1", "VXLAN id"),
        (objects.NetworkSettings(vxlan_port=70_000), "192.0.2.1", "VXLAN port"),
        (objects.NetworkSettings(mtu_bytes=500), "192.0.2.1", "MTU"),
        (objects.NetworkSettings(dns_domain="a..b"), "192.0.2.1", "DNS domain"),
        (objects.NetworkSettings(trusted_cidrs=["all"]), "192.0.2.1", "trusted source"),
        (objects.NetworkSettings(ipv6_prefix="fd00::/64"), "192.0.2.1", "has 64 bits.* or none for"),
        (objects.NetworkSettings(ipv6_prefix="10.0.0.0/8"), "192.0.2.1", "not an IPv6 network"),
        (objects.NetworkSettings(ipv6_prefix="fe80::/96"), "192.0.2.1", "cannot be used"),
        (objects.NetworkSettings(ipv6_prefix="64:ff9b::/96"), "192.0.2.1", "reserved"),
        (objects.NetworkSettings(ipv6_prefix="fd00:1::/96"), "fd00:1::5", "lies in the IPv6 prefix"),
    ],
)
def test_network_settings_that_cannot_work(chosen: objects.NetworkSettings, address: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        complete(chosen, address, "CLUSTER")


def test_network_settings_keep_what_was_chosen() -> None:
    chosen = objects.NetworkSettings(
        host_pool="172.20.0.0/14",
        host_prefix_bits=26,
        trusted_cidrs=["192.0.2.0/24"],
        dns_domain="Corp.Example.",
    )
    settings = complete(chosen, "192.0.2.1", "CLUSTER")
    assert (settings.host_pool, settings.host_prefix_bits) == ("172.20.0.0/14", 26)
    assert settings.vip_pool == "10.120.0.0/16"
    assert list(settings.trusted_cidrs) == ["192.0.2.0/24"]
    assert settings.dns_domain == "corp.example"
    assert complete(chosen, "fd00::1", "CLUSTER") == settings


@pytest.mark.parametrize(
    ("chosen", "prefix"),
    [("", r"fd[0-9a-f]{2}:[0-9a-f:]+::/96"), ("none", ""), ("2001:db8:1:0::/96", "2001:db8:1::/96")],
)
def test_a_cluster_has_an_ipv6_prefix_unless_someone_says_none(chosen: str, prefix: str) -> None:
    settings = complete(objects.NetworkSettings(ipv6_prefix=chosen), "192.0.2.1", "CLUSTER")
    assert re.fullmatch(prefix, settings.ipv6_prefix)


def test_two_clusters_have_two_ipv6_prefixes_and_each_keeps_its_own() -> None:
    assert unique_local_prefix("A") == unique_local_prefix("A") != unique_local_prefix("B")


def test_own_addresses_are_known() -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.77")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("host", ("host", 7445)),
        ("host:1", ("host", 1)),
        ("192.0.2.1:65535", ("192.0.2.1", 65_535)),
        ("fd00::1", ("fd00::1", 7445)),
        ("[fd00::1]", ("fd00::1", 7445)),
        ("[fd00::1]:9", ("fd00::1", 9)),
        ("", None),
        ("host:", None),
        ("host:0", None),
        ("host:65536", None),
        ("host:x", None),
        ("https://host", None),
        ("[host]:1", None),
    ],
)
def test_places(text: str, place: tuple[str, int] | None) -> None:
    if place is None:
        with pytest.raises(Refused, match="is not an address"):
            parse_place(text, 7445)
    else:
        assert parse_place(text, 7445) == place


def test_names_and_labels() -> None:
    assert all(node_name_error(name) is None for name in ("a", "host-1", "h.example.org", "0"))
    assert all(node_name_error(name) for name in ("", "-a", "a-", "A", "a_b", "a" * 64, "a/b", "a\n"))
    assert node_name_from_hostname("Web_01.Example.org.") == "web-01.example.org"
    assert node_name_from_hostname("___") == "host"
    assert labels_error({"disk": "ssd", "example.org/rack": ""}) is None
    for labels in ({"": "x"}, {"a b": ""}, {"a": "x" * 257}, {"a": "b\n"}, {f"k{n}": "" for n in range(65)}):
        assert labels_error(labels)


def test_this_host_describes_itself() -> None:
    description = describe_host(Config(), "1.6.20", ("nothing",))
    assert description.hostname
    assert description.kernel
    assert description.cpu_millis >= 1000
    assert description.memory_bytes > 64 << 20
    assert description.cgroup_version in ("v1", "v2")
    assert (description.containerd_version, list(description.missing_features)) == ("1.6.20", ["nothing"])
    assert [architecture(word) for word in ("x86_64", "aarch64", "riscv64")] == ["amd64", "arm64", "riscv64"]


def test_a_host_offers_the_part_of_what_it_has_that_its_configuration_says() -> None:
    own = describe_host(Config())
    more = describe_host(Config(resources=ResourcesConfig(cpu_percent=250, memory_percent=50)))
    assert (more.cpu_millis, more.memory_bytes) == (own.cpu_millis * 5 // 2, own.memory_bytes // 2)
    said = describe_host(Config(resources=ResourcesConfig(cpu_millis=3000, cpu_percent=200, memory_bytes=1 << 30)))
    assert (said.cpu_millis, said.memory_bytes) == (6000, 1 << 30)


def test_a_host_is_read_from_its_files(tmp_path: Path) -> None:
    assert operating_system(tmp_path) == "Linux"
    assert reservable_memory_bytes(tmp_path) == 0
    assert cgroup_version(tmp_path) == "v1"
    for name, text in {
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert operating_system(tmp_path) == "Debian GNU/Linux 12 (bookworm)"
    assert reservable_memory_bytes(tmp_path) == 16_000_000 * 1024 - (256 << 20)
    assert cgroup_version(tmp_path) == "v2"
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("\n")
    assert cgroup_version(tmp_path) == "v1"
