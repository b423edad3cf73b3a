"""Every command of `fairway`: its words, options, help, examples, and the function that carries it out.

`run` is "module:function", imported only when the command is used; this file imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """An argument as argparse takes it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """`path` is what people type, "node ls"."""

    path: str
    run: str
    help: str
    examples: tuple[str, ...]
    options: tuple[Option, ...] = ()
    group: str = "look"


def option(*names: str, **settings: Any) -> Option:
    return Option(names, settings)


def flag(*names: str, help: str) -> Option:
    return Option(names, {"action": "store_true", "help": help})


def repeated(name: str, metavar: str, help: str) -> Option:
    return Option((name,), {"action": "append", "default": [], "metavar": metavar, "help": help})


GROUPS = {
    "run": "run applications",
    "look": "look",
    "hosts": "cluster and hosts",
    "here": "this command",
}

OUTPUT = option("-o", "--output", choices=["table", "json"], default="table", help="table or json")
WIDE = option(
    "-o", "--output", choices=["table", "wide", "json"], default="table", help="table, wide or json"
)
QUIET = flag("-q", "--quiet", help="print names or ids only")
DETACH = flag("-d", "--detach", help="do not wait until it is done")
TIMEOUT = option(
    "--timeout", metavar="DURATION", default="10m", help="stop waiting after this long (default 10m)"
)
_LABEL = repeated("--label", "NAME=VALUE", "a label of this host; may be repeated")
_FILE = option("file", metavar="FILE", help="a Compose file")
_NAME = option("--name", metavar="APP", default="", help="name of the app, instead of the file's own")
_NODE = option("node", metavar="NODE", help="name or id of a node")
_SINCE = option(
    "--since", metavar="WHEN", default="", help='not older than this: "10m" or "2026-01-31T12:00:00"'
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "deploy",
        "cli.commands.deploy:deploy",
        "Bring the cluster to what a Compose file says, and wait until it is.",
        ("fairway deploy compose.yaml", "fairway deploy compose.yaml --name shop --detach"),
        (_FILE, _NAME, DETACH, TIMEOUT, OUTPUT),
        "run",
    ),
    Command(
        "plan",
        "cli.commands.deploy:plan",
        "Show what a deploy of the file would change; changes nothing.",
        ("fairway plan compose.yaml",),
        (_FILE, _NAME, OUTPUT),
        "run",
    ),
    Command(
        "scale",
        "cli.commands.apps:scale",
        "Set the number of tasks of services.",
        ("fairway scale shop/web=5", "fairway scale web=5 api=3"),
        (option("counts", metavar="SERVICE=N", nargs="+", help="service and number of tasks"), OUTPUT),
        "run",
    ),
    Command(
        "rm",
        "cli.commands.apps:rm",
        "Stop and remove an app, or one of its services. Volumes stay unless --volumes is given.",
        ("fairway rm shop", "fairway rm shop/web", "fairway rm shop --volumes"),
        (
            option("target", metavar="APP|APP/SERVICE"),
            flag("--volumes", help="remove the app's volumes and their data too"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "exec",
        "cli.commands.exec:run",
        "Run a command in a task. A service stands for the first of its running tasks.",
        ("fairway exec -it shop/web -- sh", "fairway exec web.2 -- cat /etc/hosts"),
        (
            flag("-i", "--interactive", help="pass standard input on"),
            flag("-t", "--tty", help="give the command a terminal"),
            repeated("--env", "NAME=VALUE", "a variable for the command; may be repeated"),
            option("--user", default="", help="user, or uid:gid, instead of the container's"),
            option("--workdir", default="", help="folder to run in"),
            option("target", metavar="TASK|SERVICE"),
            option("command", metavar="-- COMMAND", nargs="...", help="the command and its arguments"),
        ),
        "run",
    ),
    Command(
        "image load",
        "cli.commands.images:load",
        "Load an image archive ('docker save' or OCI layout, as a tar file) into the cluster.",
        ("fairway image load web.tar", "docker save web:1 | fairway image load -"),
        (
            option("file", metavar="FILE", help="a tar file, or - for standard input"),
            option("--name", default="", help="name of the image, instead of the archive's own"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "image ls",
        "cli.commands.images:ls",
        "List the images that the cluster holds.",
        ("fairway image ls",),
        (QUIET, WIDE),
        "run",
    ),
    Command(
        "image rm",
        "cli.commands.images:rm",
        "Remove an image from every host.",
        ("fairway image rm web:1",),
        (option("image", metavar="IMAGE"), flag("-f", "--force", help="even if a service names it"), OUTPUT),
        "run",
    ),
    Command("ls", "cli.commands.apps:ls", "List the apps.", ("fairway ls", "fairway ls -q"), (QUIET, OUTPUT)),
    Command(
        "ps",
        "cli.commands.apps:ps",
        "List tasks: where they run, how they are, and why not.",
        ("fairway ps", "fairway ps shop", "fairway ps shop/web -a"),
        (
            option("target", metavar="APP|SERVICE", nargs="?", default=""),
            flag("-a", "--all", help="also tasks that have ended"),
            option("--node", default="", help="only tasks on this node"),
            QUIET,
            WIDE,
        ),
    ),
    Command(
        "show",
        "cli.commands.show:show",
        "Show one service: its tasks, addresses, ports, and why anything is pending.",
        ("fairway show shop/web",),
        (option("service", metavar="SERVICE|APP/SERVICE"), OUTPUT),
    ),
    Command(
        "logs",
        "cli.commands.logs:logs",
        "Print what tasks wrote.",
        ("fairway logs shop/web", "fairway logs -f --tail 20 web.1", "fairway logs --since 10m web"),
        (
            flag("-f", "--follow", help="go on with new lines"),
            option("--tail", metavar="N", default="all", help="only the last N lines of each task"),
            _SINCE,
            flag("-t", "--timestamps", help="print the time of each line"),
            option("target", metavar="TASK|SERVICE"),
            OUTPUT,
        ),
    ),
    Command(
        "events",
        "cli.commands.events:events",
        "Print what happened in the cluster.",
        ("fairway events", "fairway events -f", "fairway events --app shop --since 1h"),
        (
            flag("-f", "--follow", help="go on with new events"),
            option("--app", default="", help="only this app's"),
            _SINCE,
            OUTPUT,
        ),
    ),
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
            _LABEL,
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
            _LABEL,
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
        (_NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node cordon",
        "cli.commands.nodes:cordon",
        "Give a node no new tasks; it keeps those it has.",
        ("fairway node cordon host-2",),
        (_NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node drain",
        "cli.commands.nodes:drain",
        "Move a node's tasks away, each replacement first, and wait until none is left.",
        ("fairway node drain host-2", "fairway node drain host-2 --timeout 5m"),
        (_NODE, DETACH, TIMEOUT, OUTPUT),
        "hosts",
    ),
    Command(
        "node activate",
        "cli.commands.nodes:activate",
        "Let a node have tasks again after cordon or drain.",
        ("fairway node activate host-2",),
        (_NODE, OUTPUT),
        "hosts",
    ),
    Command(
        "node rm",
        "cli.commands.nodes:rm",
        "Remove a node from the cluster. Drain it first, or use --force for one that is lost.",
        ("fairway node rm host-2", "fairway node rm --force host-2"),
        (_NODE, flag("-f", "--force", help="even if it has tasks; they are replaced elsewhere"), OUTPUT),
        "hosts",
    ),
    Command(
        "node label",
        "cli.commands.nodes:label",
        "Set labels of a node (NAME=VALUE) or remove them (NAME-).",
        ("fairway node label host-2 disk=ssd", "fairway node label host-2 disk-"),
        (_NODE, option("labels", metavar="NAME=VALUE|NAME-", nargs="+"), OUTPUT),
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
FAMILIES = {
    "node": "look at and change hosts of the cluster",
    "image": "load, list and remove images",
    "token": "tokens that let hosts join",
    "context": "clusters that are known here",
}
