"""`init`, `join` and `status`."""

from __future__ import annotations

import argparse
import os
import sys

from cli import contexts, output, words
from cli.commands.encryption import ENCRYPTIONS
from cli.commands.nodes import print_nodes
from cli.connection import CALL_SECONDS_MAX, Cluster, connect, connect_local
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2, objects_pb2

# Making keys, joining and the first snapshot take longer than other calls.
MEMBERSHIP_SECONDS_MAX = 120.0
TOKEN_CHARACTERS_MAX = 4096


def init(options: argparse.Namespace) -> int:
    request = control_pb2.InitialiseRequest(
        cluster_name=options.name,
        node_name=options.node_name,
        address=options.address,
        network=objects_pb2.NetworkSettings(
            host_pool=options.address_pool,
            vip_pool=options.vip_pool,
            trusted_cidrs=options.trusted_cidr,
            ipv6_prefix=options.ipv6_prefix,
            encryption=ENCRYPTIONS[options.encryption],
        ),
        labels=_labels(options.label),
    )
    reply = connect_local(options).local(
        "make a cluster", lambda local: local.Initialise(request, timeout=MEMBERSHIP_SECONDS_MAX)
    )
    context = "" if options.no_context else _store_context(options.name, reply)
    if options.output == "json":
        output.print_json({**output.plain(reply), "context": context})
        return EXIT_OK
    host = reply.address.rpartition(":")[0] or reply.address
    print(f"The cluster {options.name} is up; this host is its first node.")
    print("\nOn up to four more hosts that are to vote (3 or 5 in all):\n")
    print(f"  fairway join {host} --token {reply.voter_token}")
    print("\nOn hosts that only run tasks:\n")
    print(f"  fairway join {host} --token {reply.worker_token}")
    print("\nThe tokens expire; 'fairway token create' makes new ones.")
    if context:
        print(f"The context {context} is stored here; 'fairway context export {context}' takes it elsewhere.")
    print("Next: fairway status, fairway deploy compose.yaml")
    return EXIT_OK


def _store_context(name: str, reply: control_pb2.InitialiseReply) -> str:
    pem = {
        "certificate": reply.operator_certificate_pem,
        "key": reply.operator_private_key_pem,
        "ca": reply.ca_certificate_pem,
    }
    try:
        known = contexts.read(contexts.folder_of(os.environ))
        return contexts.add(known, name, [reply.address], pem, reply.cluster_id)
    except CommandFailed as failure:
        # The cluster is there all the same, and root reaches it by this host's socket.
        output.warn(f"the operator's certificate was not stored: {failure}")
        return ""


def join(options: argparse.Namespace) -> int:
    token = options.token
    if token == "-":  # noqa: S105 - a mark, not a secret
        token = sys.stdin.readline(TOKEN_CHARACTERS_MAX).strip()
    if not token:
        raise CommandFailed("join", "the token is empty", EXIT_USAGE)
    request = control_pb2.JoinClusterRequest(
        address=options.address,
        token=token,
        node_name=options.name,
        advertise_address=options.advertise,
        labels=_labels(options.label),
    )
    reply = connect_local(options).local(
        f"join the cluster at {options.address}",
        lambda local: local.Join(request, timeout=MEMBERSHIP_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        role = "a voter" if reply.voter else "a worker"
        print(f"This host is now {role} of the cluster {reply.cluster_name}.")
    return EXIT_OK


def _labels(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandFailed("--label", f"{text!r} is not NAME=VALUE", EXIT_USAGE)
        found[name] = value
    return found


def status(options: argparse.Namespace) -> int:
    cluster = connect(options)
    host = None
    if cluster.is_local:
        host = cluster.local(
            "show the status",
            lambda local: local.Status(control_pb2.LocalStatusRequest(), timeout=CALL_SECONDS_MAX),
        )
        if host.phase not in ("member", "starting"):
            return _without_cluster(options, host)
    try:
        reply, nodes = _ask(cluster)
    except CommandFailed:
        if host is None:
            raise
        if options.output == "json":
            output.print_json({"cluster": None, "host": output.plain(host)})
        else:
            _print_host(host)
        raise
    if options.output == "json":
        output.print_json(
            {
                **output.plain(reply),
                "nodes": [output.plain(view) for view in nodes],
                "host": output.plain(host) if host else None,
            }
        )
        return EXIT_OK
    _print_cluster(reply)
    if host:
        _print_host(host)
    print()
    print_nodes(nodes, wide=False)
    return EXIT_OK


def _ask(cluster: Cluster) -> tuple[control_pb2.GetClusterReply, list[control_pb2.NodeView]]:
    asked = "show the status"
    reply = cluster.call(
        asked,
        lambda control: control.GetCluster(control_pb2.GetClusterRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    nodes = cluster.call(
        asked,
        lambda control: control.ListNodes(control_pb2.ListNodesRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    ).nodes
    return reply, sorted(nodes, key=lambda view: view.node.meta.name)


def _without_cluster(options: argparse.Namespace, host: control_pb2.LocalStatusReply) -> int:
    if options.output == "json":
        output.print_json({"cluster": None, "host": output.plain(host)})
    else:
        print(host.message or f"This host belongs to no cluster ({host.phase}).")
        print("Make one with 'fairway init', or become part of one with 'fairway join'.")
    return EXIT_OK


def _print_cluster(reply: control_pb2.GetClusterReply) -> None:
    names = {node.meta.id: node.meta.name for node in reply.nodes}
    down = [node.meta.name for node in reply.nodes if node.state == objects_pb2.NODE_STATE_DOWN]
    total = words.plural(len(reply.nodes), "node")
    voters = ", ".join(sorted(names.get(each, each) for each in reply.voters))
    rows = [
        ("Cluster", f"{reply.cluster.meta.name} ({reply.cluster.meta.id})"),
        ("Nodes", f"{total}, down: {', '.join(down)}" if down else f"{total}, none down"),
        ("Voters", voters),
        ("Fairway", _versions(reply)),
        ("Leader", f"{names.get(reply.leader_id, reply.leader_id) or 'none'} (term {reply.term})"),
        ("Revision", str(reply.revision)),
        ("Addresses", _addresses(reply.cluster.network)),
        ("Encryption", _encryption(reply.cluster)),
        ("Apps", f"{reply.app_count} with {words.plural(reply.service_count, 'service')}"),
        ("Tasks", f"{reply.task_running_count} running, {reply.task_wanted_count} wanted"),
    ]
    print("\n".join(f"{label + ':':<12}{text}" for label, text in rows))


def _encryption(cluster: objects_pb2.Cluster) -> str:
    """What hosts do now; `fairway net encryption status` says where they are going and what they wait for."""
    return f"WireGuard, keys of epoch {cluster.encryption.sending}" if cluster.encryption.sending else "none"


def _addresses(network: objects_pb2.NetworkSettings) -> str:
    """Where addresses of tasks and services come from: pools, and the prefix that stands before them in IPv6."""
    pools = f"tasks {network.host_pool}, services {network.vip_pool}"
    return f"{pools}, in IPv6 behind {network.ipv6_prefix}" if network.ipv6_prefix else f"{pools}, no IPv6"


def _versions(reply: control_pb2.GetClusterReply) -> str:
    """The one version of all hosts, or during an upgrade who runs which; and the level that all of them know."""
    hosts: dict[str, list[str]] = {}
    for node in reply.nodes:
        hosts.setdefault(node.description.fairway_version or "unknown", []).append(node.meta.name)
    level = max(reply.cluster.feature_level, 1)
    if len(hosts) <= 1:
        return f"{next(iter(hosts), 'unknown')}, feature level {level}"
    mixed = "; ".join(f"{version} on {', '.join(sorted(names))}" for version, names in sorted(hosts.items()))
    return f"{mixed}; feature level {level}"


def _print_host(host: control_pb2.LocalStatusReply) -> None:
    if host.phase == "starting":
        print(f"{'This host:':<12}its daemon is starting its part in the cluster", flush=True)
        return
    parts = [host.node_name, host.raft_role if host.raft_role not in ("", "none") else "worker"]
    if not host.quorum and host.raft_role not in ("", "none"):
        parts.append("WITHOUT A MAJORITY")
    parts.append(f"up {words.duration(host.uptime_ms)}")
    if host.message:
        parts.append(host.message)
    print(f"{'This host:':<12}{', '.join(parts)}", flush=True)
