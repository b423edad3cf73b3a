"""The commands about who may reach whom."""

from __future__ import annotations

from cli.command import OUTPUT, QUIET, WIDE, Command, flag, option

_POLICY = option("policy", metavar="POLICY", help="name, TENANT/NAME or id; APP/SERVICE for one in an app's file")

POLICY: tuple[Command, ...] = (
    Command(
        "net policy apply",
        "cli.commands.policies:apply",
        "Create the policies of a file, or replace those of the same names; all or none.",
        ("fairway net policy apply policies.yaml", "fairway net policy apply --check policies.yaml"),
        (
            option("file", metavar="FILE", help="a YAML file with policies, or - for standard input"),
            flag("--check", help="only say what would change"),
            OUTPUT,
        ),
    ),
    Command(
        "net policy ls",
        "cli.commands.policies:ls",
        "List the policies, those in apps' files included; wide: with what they denied.",
        ("fairway net policy ls", "fairway net policy ls -o wide"),
        (QUIET, WIDE),
    ),
    Command(
        "net policy show",
        "cli.commands.policies:show",
        "Show a policy, the services that it selects, and what it denied or, as a dry run, would have denied.",
        ("fairway net policy show db", "fairway net policy show shop/db"),
        (_POLICY, OUTPUT),
    ),
    Command(
        "net policy rm",
        "cli.commands.policies:remove",
        "Remove a policy.",
        ("fairway net policy rm db",),
        (_POLICY, OUTPUT),
    ),
    Command(
        "net policy test",
        "cli.commands.policies:test",
        "Say whether A may reach a port of B, and by which rule; sends nothing. Exit status 6: it may not.",
        (
            "fairway net policy test shop/web shop/db 5432",
            "fairway net policy test 203.0.113.9 shop/web 8080",
            "fairway net policy test shop/web 198.51.100.1 53/udp",
        ),
        (
            option("source", metavar="A", help="a service, a task, a host or an address"),
            option("target", metavar="B", help="a service, a task or an outside address"),
            option("port", metavar="PORT", nargs="?", default="", help="of the task: 80, 53/udp; none: ICMP"),
            flag("--published", help="by a published port of A's own host"),
            flag("--ipv6", help="by IPv6"),
            OUTPUT,
        ),
    ),
)
