"""The commands for the cluster, its hosts, and this program itself."""

from __future__ import annotations

from cli.command import (
    DETACH,
    LABEL,
    NODE,
    OUTPUT,
    QUIET,
    TIMEOUT,
    WIDE,
    Command,
    flag,
    option,
    repeated,
)

CLUSTER: tuple[Command, ...] = (
    Command(
        "status", "cli.commands.cluster:status", "Show how the cluster is.", ("fairway status",), (OUTPUT,)
    ),
    Command(
        "init",
        "cli.commands.cluster:init",
        "Make this host the first of a new cluster.",
        ("fairway init", "fairway init --name prod --address 192.0.2.1"),
        (
            option("--name", default="fairway", help="name of the cluster"),
            option("--address", default="", help="address that other hosts reach this one by"),
            option("--node-name", default="", help="name of this host (default: its host name)"),
            LABEL,
            option("--address-pool", metavar="CIDR", default="", help="pool for addresses of tasks"),
            option("--vip-pool", metavar="CIDR", default="", help="pool for addresses of services"),
            repeated("--trusted-cidr", "CIDR", "outside network that may reach tasks; may be repeated"),
            flag("--no-context", help="do not store the operator's certificate"),
            OUTPUT,
        ),
        "hosts",
    ),
    Command(
        "join",
        "cli.commands.cluster:join",
        "Make this host part of a cluster. 'fairway token create' makes the token.",
        ("fairway join 192.0.2.1 --token TOKEN", "fairway join 192.0.2.1 --token - < token-file"),
        (
            option("address", metavar="ADDRESS", help="host or host:port of a voter"),
            option("--token", required=True, help="the join token, or - to read it from standard input"),
            option("--name", default="", help="name of this host (default: its host name)"),
            option(
                "--address", dest="advertise", default="", help="address that other hosts reach this one by"
            ),
            LABEL,
            OUTPUT,
        ),
        "hosts",
    ),
    Command(
        "node ls", "cli.commands.nodes:ls", "List the nodes.", ("fairway node ls",), (QUIET, WIDE), "hosts"
    ),
    Command(
        "node show",
        "cli.commands.nodes:show",
        "Show one node.",
        ("fairway node show host-2",),
        (NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node cordon",
        "cli.commands.nodes:cordon",
        "Give a node no new tasks; it keeps those it has.",
        ("fairway node cordon host-2",),
        (NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node drain",
        "cli.commands.nodes:drain",
        "Move a node's tasks away, each replacement first, and wait until none is left.",
        ("fairway node drain host-2", "fairway node drain host-2 --timeout 5m"),
        (NODE, DETACH, TIMEOUT, OUTPUT),
        "hosts",
    ),
    Command(
        "node activate",
        "cli.commands.nodes:activate",
        "Let a node have tasks again after cordon or drain.",
        ("fairway node activate host-2",),
        (NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node rm",
        "cli.commands.nodes:rm",
        "Remove a node from the cluster. Drain it first, or use --force for one that is lost.",
        ("fairway node rm host-2", "fairway node rm --force host-2"),
        (NODE, flag("-f", "--force", help="even if it has tasks; they are replaced elsewhere"), OUTPUT),
        "hosts",
    ),
    Command(
        "node label",
        "cli.commands.nodes:label",
        "Set labels of a node (NAME=VALUE) or remove them (NAME-).",
        ("fairway node label host-2 disk=ssd", "fairway node label host-2 disk-"),
        (NODE, option("labels", metavar="NAME=VALUE|NAME-", nargs="+"), OUTPUT),
        "hosts",
    ),
    Command(
        "token create",
        "cli.commands.tokens:create",
        "Make a join token; it is shown once.",
        ("fairway token create", "fairway token create --role worker --valid 1h"),
        (
            option("--role", choices=["voter", "worker"], default="voter", help="what hosts join as"),
            option(
                "--valid", metavar="DURATION", default="24h", help="how long it can be used (default 24h)"
            ),
            option("--name", default="", help="what to call it"),
            QUIET,
            OUTPUT,
        ),
        "hosts",
    ),
    Command(
        "token ls",
        "cli.commands.tokens:ls",
        "List join tokens.",
        ("fairway token ls",),
        (QUIET, OUTPUT),
        "hosts",
    ),
    Command(
        "token revoke",
        "cli.commands.tokens:revoke",
        "Make a join token useless.",
        ("fairway token revoke TOKEN-ID",),
        (option("token", metavar="TOKEN", help="name or id"), OUTPUT),
        "hosts",
    ),
    Command(
        "context ls",
        "cli.commands.contexts:ls",
        "List the clusters known here.",
        ("fairway context ls",),
        (QUIET, OUTPUT),
        "here",
    ),
    Command(
        "context use",
        "cli.commands.contexts:use",
        "Choose the cluster for every command that names none; --none for the host's own daemon.",
        ("fairway context use prod", "fairway context use --none"),
        (
            option("name", metavar="NAME", nargs="?", default=""),
            flag("--none", help="use this host's own daemon again"),
        ),
        "here",
    ),
    Command(
        "context rm",
        "cli.commands.contexts:rm",
        "Forget a context.",
        ("fairway context rm prod",),
        (option("name", metavar="NAME"),),
        "here",
    ),
    Command(
        "context export",
        "cli.commands.contexts:export",
        "Print a context, its private key included, for 'fairway context import' elsewhere.",
        ("fairway context export prod > prod.json",),
        (option("name", metavar="NAME"),),
        "here",
    ),
    Command(
        "context import",
        "cli.commands.contexts:load",
        "Store a context that was exported elsewhere.",
        ("fairway context import prod.json",),
        (
            option("file", metavar="FILE", help="the exported file, or - for standard input"),
            option("--name", default="", help="name to store it under"),
        ),
        "here",
    ),
    Command(
        "completion",
        "cli.commands.completion:print_script",
        "Print a script that completes commands in a shell.",
        ("source <(fairway completion bash)",),
        (option("shell", choices=["bash", "zsh", "fish"]),),
        "here",
    ),
    Command(
        "version", "cli.commands.about:version", "Print the version.", ("fairway version",), (OUTPUT,), "here"
    ),
    Command(
        "lab",
        "cli.commands.about:lab",
        "A whole cluster on this machine, to try things out: see 'fairway lab --help'.",
        ("fairway lab up --hosts 3", "fairway lab down"),
        (),
        "here",
    ),
)
