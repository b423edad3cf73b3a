"""`net policy apply`, `ls`, `show`, `rm` and `test`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from cli import output, words
from cli.compose import policy_file
from cli.compose.problems import ComposeRefused
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_FOUND_BROKEN, EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2, objects_pb2

DENIALS_SHOWN_MAX = 10
_FILE_BYTES_MAX = 1 << 20
_PROTOCOLS = ("tcp", "udp", "sctp")
_Action = control_pb2.PolicyChange
_VERBS = {_Action.UNCHANGED: "unchanged", _Action.CREATE: "created", _Action.UPDATE: "updated"}


def apply(options: argparse.Namespace) -> int:
    asked = f"apply the policies of {options.file}"
    try:
        data = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1) if options.file == "-" else Path(options.file).read_bytes()
        policies = policy_file.parse(data, options.file)
    except OSError as error:
        raise CommandFailed(asked, error.strerror or str(error)) from error
    except ComposeRefused as error:
        raise CommandFailed("", str(error)) from error
    request = control_pb2.ApplyPoliciesRequest(policies=policies, plan_only=options.check)
    reply = connect(options).call(asked, lambda control: control.ApplyPolicies(request, timeout=CALL_SECONDS_MAX))
    for warning in reply.warnings:
        output.warn(warning)
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    for change in reply.changes:
        verb = _VERBS.get(change.action, "?")
        print(f"{change.name} {'would be ' if options.check and change.action else ''}{verb}")
    return EXIT_OK


def ls(options: argparse.Namespace) -> int:
    views = list(_list(connect(options), "", counts=options.output == "wide").policies)
    if options.quiet:
        print("".join(f"{view.policy.meta.name}\n" for view in views), end="")
    elif options.output == "json":
        output.print_items(views)
    else:
        wide = options.output == "wide"
        output.print_table(
            ["NAME", "TENANT", "SELECTS", "SERVICES", "INGRESS", "EGRESS", "MODE", *(["DENIED"] if wide else [])],
            [
                [
                    view.policy.meta.name,
                    view.policy.meta.tenant,
                    _selector(view.policy.selects),
                    str(len(view.selected)),
                    _rule_count(view.policy, "ingress"),
                    _rule_count(view.policy, "egress"),
                    "dry run" if view.policy.dry_run else "enforced",
                    *([str(view.packets)] if wide else []),
                ]
                for view in views
            ],
        )
    return EXIT_OK


def show(options: argparse.Namespace) -> int:
    reply = _list(connect(options), options.policy, counts=True)
    if options.output == "json":
        output.print_items(reply.policies)
        return EXIT_OK
    for view in reply.policies:
        _show(view)
    if reply.silent:
        output.warn(f"not counted: {', '.join(reply.silent)} did not answer")
    return EXIT_OK


def remove(options: argparse.Namespace) -> int:
    request = control_pb2.RemovePolicyRequest(policy=options.policy)
    reply = connect(options).call(
        f"remove policy {options.policy}",
        lambda control: control.RemovePolicy(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply.policy))
    else:
        print(f"{reply.policy.meta.name} removed")
    return EXIT_OK


def test(options: argparse.Namespace) -> int:
    """Exit status EXIT_FOUND_BROKEN where the answer is no."""
    protocol, port = _port(options.port)
    request = control_pb2.TestPolicyRequest(
        source=options.source,
        target=options.target,
        port=port,
        protocol=protocol,
        ipv6=options.ipv6,
        published=options.published,
    )
    reply = connect(options).call(
        f"test whether {options.source} may reach {options.target}",
        lambda control: control.TestPolicy(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        colours = output.colours(sys.stdout)
        print(output.paint("yes" if reply.allowed else "no", "green" if reply.allowed else "red", colours))
        for step in reply.steps:
            print(f"  {step.what:<8} {'yes' if step.allowed else 'no ':<4} {step.rule}")
            if step.would:
                print(f"  {'':<8} {'':<4} {output.paint('dry run: ' + step.would, 'yellow', colours)}")
    return EXIT_OK if reply.allowed else EXIT_FOUND_BROKEN


def _list(cluster: Cluster, policy: str, *, counts: bool) -> control_pb2.ListPoliciesReply:
    request = control_pb2.ListPoliciesRequest(policy=policy, counts=counts)
    return cluster.call(
        f"show policy {policy}" if policy else "list policies",
        lambda control: control.ListPolicies(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )


def _port(text: str) -> tuple[str, int]:
    """ "80", "53/udp", "udp/53" or "icmp"."""
    if text in ("", "icmp"):
        return "icmp", 0
    parts = [part for part in text.lower().split("/") if part]
    numbers = [part for part in parts if part.isdecimal()]
    protocols = [part for part in parts if part in _PROTOCOLS]
    if len(numbers) != 1 or len(numbers) + len(protocols) != len(parts) or not 0 < int(numbers[0]) < 65_536:
        raise CommandFailed("test a policy", f"{text!r} is no port; write 80, 53/udp or icmp", EXIT_USAGE)
    return (protocols or ["tcp"])[0], int(numbers[0])


def _show(view: control_pb2.PolicyView) -> None:
    policy = view.policy
    denied = "would have been denied" if policy.dry_run else "denied"
    rows = [
        ("Policy", policy.meta.name + (f" (in the file of {view.service})" if view.service else "")),
        ("Tenant", policy.meta.tenant),
        ("Selects", f"{_selector(policy.selects)}: {', '.join(view.selected) or 'nothing that is there now'}"),
        ("Mode", "dry run: counts and tells what it would deny" if policy.dry_run else "enforced"),
        ("Counted", f"{words.plural(view.packets, 'connection')} {denied}, {view.bytes} bytes"),
    ]
    print("\n".join(f"{label + ':':<9}{text}" for label, text in rows))
    for direction, word in (("ingress", "from"), ("egress", "to")):
        if not policy.HasField(direction):  # type: ignore[arg-type]
            continue
        rules = list(getattr(policy, direction).rules)
        print(f"\n{direction.capitalize()}{'' if rules else ': nothing is allowed'}")
        for number, rule in enumerate(rules, start=1):
            peers = "; ".join(_peer(each) for each in rule.peers) or "everyone"
            ports = ", ".join(_port_words(each) for each in rule.ports) or "every port"
            print(f"  {number}. {word} {peers}: {ports}")
    if view.denials:
        now = time.time_ns() // 1_000_000
        print("\nLast " + denied)
        for denial in list(view.denials)[-DENIALS_SHOWN_MAX:]:
            port = f" {denial.protocol}/{denial.port}" if denial.port else f" {denial.protocol}"
            print(f"  {words.age(denial.unix_ms, now)} ago: {denial.source} to {denial.target}{port}")
    print()


def _rule_count(policy: objects_pb2.Policy, direction: str) -> str:
    if not policy.HasField(direction):  # type: ignore[arg-type]
        return "-"
    count = len(getattr(policy, direction).rules)
    return words.plural(count, "rule") if count else "nothing"


def _peer(peer: objects_pb2.PolicyPeer) -> str:
    if peer.HasField("services"):
        return _selector(peer.services)
    excepted = ", ".join(getattr(peer, "except"))
    return peer.cidr + (f" except {excepted}" if excepted else "")


def _selector(selector: objects_pb2.PolicySelector) -> str:
    name = f"{selector.app or '*'}/{selector.service or '*'}"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.labels.items()))
    tenant = f"tenant {selector.tenant}, " if selector.tenant else ""
    return tenant + name + (f" with {labels}" if labels else "")


def _port_words(port: objects_pb2.PolicyPort) -> str:
    if not port.first:
        return port.protocol
    return f"{port.protocol}/{port.first}" + (f"-{port.last}" if port.last not in (0, port.first) else "")
