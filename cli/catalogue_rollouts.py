"""The commands about how the tasks of a service are replaced."""

from __future__ import annotations

from cli.command import DETACH, OUTPUT, TIMEOUT, Command, flag, option

_SERVICE = option("service", metavar="SERVICE|APP/SERVICE")

ROLLOUTS: tuple[Command, ...] = (
    Command(
        "service history",
        "cli.commands.service:history",
        "List a service's versions: what changed, when, and whether it worked.",
        ("fairway service history shop/web",),
        (_SERVICE, OUTPUT),
        "run",
    ),
    Command(
        "service rollback",
        "cli.commands.service:rollback",
        "Go back to the last version that worked, or to a chosen one.",
        ("fairway service rollback shop/web", "fairway service rollback shop/web --to 3"),
        (
            _SERVICE,
            option("--to", metavar="REVISION", default="", help="a revision of 'fairway service history'"),
            DETACH,
            TIMEOUT,
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "service pause",
        "cli.commands.service:pause",
        "Replace no further task of a service whose rollout is under way.",
        ("fairway service pause shop/web",),
        (_SERVICE, OUTPUT),
        "run",
    ),
    Command(
        "service resume",
        "cli.commands.service:resume",
        "Go on with a rollout that was paused, by hand or because new tasks failed.",
        ("fairway service resume shop/web",),
        (_SERVICE, DETACH, TIMEOUT, OUTPUT),
        "run",
    ),
    Command(
        "service promote",
        "cli.commands.service:promote",
        "Let a canary go on to its next step.",
        ("fairway service promote shop/web", "fairway service promote shop/web --all"),
        (_SERVICE, flag("--all", help="past all steps, to every task"), DETACH, TIMEOUT, OUTPUT),
        "run",
    ),
    Command(
        "service abort",
        "cli.commands.service:abort",
        "End a rollout that is under way: go back to the last version that worked.",
        ("fairway service abort shop/web",),
        (_SERVICE, DETACH, TIMEOUT, OUTPUT),
        "run",
    ),
)
