"""The commands about what tenants may have."""

from __future__ import annotations

from cli.command import OUTPUT, QUIET, Command, option

_TENANT = option("tenant", metavar="TENANT", help="its name; what nobody gave a tenant is of `default`")

BUDGETS: tuple[Command, ...] = (
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
