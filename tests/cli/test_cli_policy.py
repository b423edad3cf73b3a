"""Policies in files: what they become, how they are refused by line, and the commands."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.compose import policy_file
from cli.compose.problems import ComposeRefused
from cli.failure import EXIT_FAILED, EXIT_FOUND_BROKEN, EXIT_OK, EXIT_USAGE
from proto import control_pb2, host_pb2, objects_pb2
from tests.cli.control_server import ControlServer
from tests.cli.test_cli_compose import parse, service

Run = Callable[..., Any]
FILE = """
policies:
  - name: db
    tenant: acme
    selects: {service: shop/db, labels: {tier: data}}
    dry_run: true
    ingress:
      - from:
          - service: web
          - {tenant: other, app: site}
          - {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
        ports: [5432, 53/udp, tcp/8000-8100, sctp]
      - ports: 9090
    egress: []
"""


def read(text: str) -> list[objects_pb2.Policy]:
    return policy_file.parse(textwrap.dedent(text).encode(), "policies.yaml")


def test_a_file_becomes_policies() -> None:
    [policy] = read(FILE)
    assert (policy.meta.name, policy.meta.tenant, policy.dry_run) == ("db", "acme", True)
    assert (policy.selects.app, policy.selects.service) == ("shop", "db")
    assert policy.selects.labels == {"tier": "data"}
    first, second = policy.ingress.rules
    assert [each.services.service for each in first.peers[:1]] == ["web"]
    assert (first.peers[1].services.tenant, first.peers[1].services.app) == ("other", "site")
    assert (first.peers[2].cidr, list(getattr(first.peers[2], "except"))) == ("10.0.0.0/8", ["10.1.0.0/16"])
    ports = [(each.protocol, each.first, each.last) for each in first.ports]
    assert ports == [("tcp", 5432, 5432), ("udp", 53, 53), ("tcp", 8000, 8100), ("sctp", 0, 0)]
    assert not second.peers and second.ports[0].first == 9090
    assert policy.HasField("egress") and not policy.egress.rules


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("policies: []", "policies.yaml:1: policies has no policies"),
        ("policies:\n- selects: {}\n  ingress: []", "policies.yaml:2: policies[0] has no name"),
        ("policies:\n- name: a\n  ingress: []", "selects: {} is every service of the tenant"),
        ("policies:\n- name: a\n  selects: {}", "policies[0] has neither ingress nor egress"),
        ("policies:\n- name: a\n  selects: {}\n  ingres: []", "policies.yaml:4: policies[0].ingres is not supported"),
        ("policies:\n- name: a\n  selects: {tenant: b}\n  ingress: []", "selects services of its own tenant"),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - to: [{app: b}]",
            "policies.yaml:5: policies[0].ingress[0].to is not supported by Fairway (ingress has from)",
        ),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - from: []",
            "policies[0].ingress[0].from has no peers; leave it out for everyone",
        ),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - from: [{cidr: 10.0.0.1/8}]",
            "'10.0.0.1/8' is not a range of addresses",
        ),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - from: [{cidr: 10.0.0.0/8, app: b}]",
            "names addresses and services",
        ),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - from: [{cidr: 10.0.0.0/8, except: [11.0.0.0/9]}]",
            "11.0.0.0/9 is not within 10.0.0.0/8",
        ),
        (
            "policies:\n- name: a\n  selects: {}\n  ingress:\n  - ports: [80/icmp]",
            "'icmp' is not one of tcp, udp, sctp",
        ),
        ("policies:\n- name: a\n  selects: {}\n  ingress:\n  - ports: [90-80]", "'90-80' is not within 1 to 65535"),
        ("policies:\n- name: a\n  selects: {}\n  ingress:\n  - ports: [tcp/80/udp]", "is not a port"),
    ],
)
def test_what_is_wrong_is_refused_by_line(text: str, refusal: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        read(text)
    assert refusal in str(refused.value)


def test_compose_files_have_policies_of_services_and_closed_networks() -> None:
    spec = service("x-fairway: {policy: {ingress: [{from: [{service: db}], ports: [80]}], dry_run: true}}")
    assert spec.policy.dry_run
    assert spec.policy.ingress.rules[0].peers[0].services.service == "db"
    assert not spec.policy.HasField("egress")
    text = "services: {{web: {{image: w, networks: [a]}}}}\nnetworks: {{a: {{x-fairway: {{default: {}}}}}}}"
    assert parse(text.format("closed")).spec.networks["a"].closed
    assert not parse(text.format("open")).spec.networks["a"].closed
    with pytest.raises(ComposeRefused, match=r"compose.yaml:2: networks.a.x-fairway.default: 'shut' is neither"):
        parse(text.format("shut"))
    with pytest.raises(ComposeRefused, match=r"x-fairway.policy has neither ingress nor egress"):
        service("x-fairway: {policy: {}}")


def test_apply_says_what_changed_and_what_is_odd(server: ControlServer, fairway: Run, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(FILE)
    change = control_pb2.PolicyChange(name="db", action=control_pb2.PolicyChange.CREATE)
    server.on("ApplyPolicies", control_pb2.ApplyPoliciesReply(changes=[change], warnings=["policy db selects nothing"]))
    shown = fairway("net", "policy", "apply", str(file))
    assert (shown.code, shown.out) == (EXIT_OK, "db created\n")
    assert "selects nothing" in shown.err
    assert fairway("net", "policy", "apply", "--check", str(file)).out == "db would be created\n"
    assert [each.plan_only for each in server.asked("ApplyPolicies")] == [False, True]
    file.write_text("policies:\n  - name: [a]\n")
    refused = fairway("net", "policy", "apply", str(file))
    assert refused.code == EXIT_FAILED and f"{file}:2:" in refused.err
    assert fairway("net", "policy", "apply", str(tmp_path / "none")).code == EXIT_FAILED


def test_test_says_yes_or_no_and_by_which_rule(server: ControlServer, fairway: Run) -> None:
    step = control_pb2.PolicyStep(what="ingress", allowed=False, rule="no rule allows it", would="")
    server.on("TestPolicy", control_pb2.TestPolicyReply(allowed=False, rule="no rule allows it", steps=[step]))
    shown = fairway("net", "policy", "test", "shop/web", "shop/db", "53/udp", "--ipv6")
    assert shown.code == EXIT_FOUND_BROKEN
    assert shown.out.startswith("no\n") and "no rule allows it" in shown.out
    (request,) = server.asked("TestPolicy")
    assert (request.source, request.target, request.protocol, request.port, request.ipv6) == (
        "shop/web",
        "shop/db",
        "udp",
        53,
        True,
    )
    server.on("TestPolicy", control_pb2.TestPolicyReply(allowed=True))
    assert fairway("net", "policy", "test", "a", "b").code == EXIT_OK
    assert server.asked("TestPolicy")[1].protocol == "icmp"
    assert fairway("net", "policy", "test", "a", "b", "0").code == EXIT_USAGE


def test_listings_show_rules_counts_and_denials(server: ControlServer, fairway: Run) -> None:
    [policy] = read(FILE)
    denial = host_pb2.PolicyDenial(unix_ms=1, source="shop/cart.1", target="shop/db.1", protocol="tcp", port=80)
    view = control_pb2.PolicyView(policy=policy, selected=["shop/db"], packets=7, denials=[denial])
    server.on("ListPolicies", control_pb2.ListPoliciesReply(policies=[view], silent=["host-3"]))
    listed = fairway("net", "policy", "ls", "-o", "wide").out
    assert "2 rules" in listed and "nothing" in listed and "dry run" in listed and "7" in listed
    shown = fairway("net", "policy", "show", "db")
    assert "shop/cart.1 to shop/db.1 tcp/80" in shown.out and "10.0.0.0/8 except 10.1.0.0/16" in shown.out
    assert "7 connections would have been denied" in shown.out and "host-3" in shown.err
    assert json.loads(fairway("net", "policy", "ls", "-o", "json").out)[0]["selected"] == ["shop/db"]
    assert fairway("net", "policy", "ls", "-q").out == "db\n"
    server.on("RemovePolicy", control_pb2.RemovePolicyReply(policy=policy))
    assert fairway("net", "policy", "rm", "db").out == "db removed\n"
