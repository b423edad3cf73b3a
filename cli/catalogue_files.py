"""The commands about secrets and configs."""

from __future__ import annotations

from cli.command import OUTPUT, QUIET, Command, Option, flag, option, repeated


def _name(word: str) -> Option:
    return option("name", metavar="NAME", help=f"of the {word}; TENANT/NAME in another tenant than default")


_FILE = option("file", metavar="FILE", help="what is in it, at most 500 KiB; - for standard input")


def _create(word: str, help: str, examples: tuple[str, ...]) -> Command:
    labels = repeated("--label", "NAME=VALUE", f"a label of the {word}; may be repeated")
    options = (_name(word), _FILE, labels, OUTPUT)
    return Command(f"{word} create", f"cli.commands.files:create_{word}", help, examples, options, "run")


def _ls(word: str, help: str) -> Command:
    return Command(f"{word} ls", f"cli.commands.files:ls_{word}", help, (f"fairway {word} ls",), (QUIET, OUTPUT), "run")


def _inspect(word: str, help: str, name: str) -> Command:
    example = f"fairway {word} inspect {name}"
    return Command(
        f"{word} inspect", f"cli.commands.files:inspect_{word}", help, (example,), (_name(word), OUTPUT), "run"
    )


def _remove(word: str, name: str) -> Command:
    return Command(
        f"{word} rm",
        f"cli.commands.files:remove_{word}",
        f"Remove a {word} that no service uses.",
        (f"fairway {word} rm {name}",),
        (_name(word), OUTPUT),
        "run",
    )


FILES: tuple[Command, ...] = (
    _create(
        "secret",
        "Give the cluster a secret, which Compose files name as external: true.",
        ("fairway secret create db-password ./password.txt", "pwgen 30 1 | fairway secret create db-password -"),
    ),
    Command(
        "secret rotate",
        "cli.commands.files:rotate_secret",
        "Give a secret a new version; the services that use it get new tasks, as they are updated.",
        ("fairway secret rotate db-password ./password.txt", "fairway secret rotate db-password - --keep-services"),
        (
            _name("secret"),
            _FILE,
            flag("--keep-services", help="services go on with the version they have until they are deployed"),
            OUTPUT,
        ),
        "run",
    ),
    _ls("secret", "List the secrets; what is in them is never shown."),
    _inspect("secret", "Show a secret's versions and who uses them; what is in them is never shown.", "db-password"),
    _remove("secret", "db-password"),
    _create(
        "config",
        "Give the cluster a config, which Compose files name as external: true.",
        ("fairway config create site.conf ./site.conf",),
    ),
    _ls("config", "List the configs."),
    _inspect("config", "Show a config's versions, who uses them, and what is in the newest.", "site.conf"),
    _remove("config", "site.conf"),
)
