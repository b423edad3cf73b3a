"""The commands about what tenants may have, and about how tasks lie over hosts."""

from __future__ import annotations

from cli.command import DETACH, OUTPUT, QUIET, TIMEOUT, Command, flag, option

_TENANT = option("tenant", metavar="TENANT", help="its name; what nobody gave a tenant is of `default`")

BUDGETS: tuple[Command, ...] = (
    Command(
        "rebalance",
        "cli.commands.rebalance:rebalance",
        "Move tasks from fuller hosts to emptier ones, each started anew before it stops, or say which.",
        (
            "fairway rebalance --dry-run",
            "fairway rebalance shop/web",
            "fairway rebalance --automatic on --after 5m --moves-per-minute 4",
        ),
        (
            option("service", metavar="SERVICE", nargs="?", default="", help="NAME or APP/NAME; none: all"),
            flag("--dry-run", help="only say what would be moved, and why"),
            flag("--stop", help="begin no further move of those that were asked for"),
            flag("--status", help="say what is set and what goes on"),
            option("--automatic", choices=["on", "off"], default="", help="whether it happens by itself (default off)"),
            option(
                "--after", metavar="DURATION", default="", help="by itself: when nothing has changed for so long (1m)"
            ),
            option("--moves-per-minute", metavar="N", default="", help="of the whole cluster, at most (10)"),
            DETACH,
            TIMEOUT,
            OUTPUT,
        ),
        "hosts",
    ),
    Command(
        "quota set",
        "cli.commands.quotas:change",
        "Set how much a tenant may have. What it has already stays; tasks beyond it wait. `none` takes a bound away.",
        (
            "fairway quota set default --tasks 50 --cpu 16 --memory 64g",
            "fairway quota set team-a --ports 5 --volumes none",
        ),
        (
            _TENANT,
            option(
                "--tasks", metavar="N", default="", help="that have a host; a task and the one that replaces it: one"
            ),
            option("--cpu", metavar="CORES", default="", help="reserved by its tasks, like 4 or 0.5"),
            option("--memory", metavar="SIZE", default="", help="reserved by its tasks, like 512m or 64g"),
            option("--ports", metavar="N", default="", help="published ports"),
            option("--volumes", metavar="N", default="", help="named volumes, those of slots included"),
            OUTPUT,
        ),
    ),
    Command(
        "quota ls",
        "cli.commands.quotas:ls",
        "List tenants: what each uses, and how much it may have.",
        ("fairway quota ls", "fairway quota ls -o json"),
        (QUIET, OUTPUT),
    ),
    Command(
        "quota show",
        "cli.commands.quotas:show",
        "Show what a tenant uses, and how much it may have.",
        ("fairway quota show default",),
        (_TENANT, OUTPUT),
    ),
    Command(
        "quota rm",
        "cli.commands.quotas:remove",
        "Remove a tenant's quota: it may have whatever there is.",
        ("fairway quota rm team-a",),
        (_TENANT, OUTPUT),
    ),
)
