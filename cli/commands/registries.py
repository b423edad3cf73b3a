"""`registry login`, `logout`, `set`, `ls` and `rm`."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from cli import output
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_USAGE, CommandFailed
from proto import control_pb2

FILE_BYTES_MAX = 256 << 10
LOGIN_SECONDS_MAX = 120.0  # the registry is asked


def login(options: argparse.Namespace) -> int:
    asked = f"log in to {options.registry}"
    password = _password(asked, options)
    request = control_pb2.UpdateRegistryRequest(
        registry=options.registry, login=control_pb2.Login(user=options.user, password=password)
    )
    return _update(options, asked, request, f"{options.user} is logged in to {options.registry}")


def _password(asked: str, options: argparse.Namespace) -> bytes:
    if options.password_stdin:
        found = sys.stdin.buffer.read(FILE_BYTES_MAX).rstrip(b"\r\n")
    elif sys.stdin.isatty():
        found = getpass.getpass(f"Password of {options.user} at {options.registry}: ").encode(errors="surrogateescape")
    else:
        raise CommandFailed(asked, "the password is read from a terminal, or with --password-stdin", EXIT_USAGE)
    if not found:
        raise CommandFailed(asked, "the password is empty", EXIT_USAGE)
    return found


def logout(options: argparse.Namespace) -> int:
    request = control_pb2.UpdateRegistryRequest(registry=options.registry, logout=True)
    return _update(options, f"log out of {options.registry}", request, f"Logged out of {options.registry}")


def update(options: argparse.Namespace) -> int:
    asked = f"set registry {options.registry}"
    for one, other in (("insecure", "secure"), ("ca", "no_ca"), ("mirror", "no_mirrors")):
        if getattr(options, one) and getattr(options, other):
            words = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise CommandFailed(asked, f"{words[0]} and {words[1]} contradict each other", EXIT_USAGE)
    request = control_pb2.UpdateRegistryRequest(registry=options.registry)
    if options.insecure or options.secure:
        request.insecure = options.insecure
    if options.ca or options.no_ca:
        request.ca_pem = _text(asked, options.ca) if options.ca else ""
    if options.mirror or options.no_mirrors:
        request.mirrors.SetInParent()
        request.mirrors.mirrors.extend(options.mirror)
    return _update(options, asked, request, f"Set registry {options.registry}")


def _text(asked: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandFailed(asked, f"{path}: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise CommandFailed(asked, f"{path} is larger than {FILE_BYTES_MAX} bytes", EXIT_USAGE)
    return data.decode(errors="replace")


def _update(options: argparse.Namespace, asked: str, request: control_pb2.UpdateRegistryRequest, done: str) -> int:
    reply = connect(options).call(asked, lambda control: control.UpdateRegistry(request, timeout=LOGIN_SECONDS_MAX))
    if options.output == "json":
        output.print_json(output.plain(reply.registry))
    else:
        print(done)
    return EXIT_OK


def ls(options: argparse.Namespace) -> int:
    reply = connect(options).call(
        "list registries",
        lambda control: control.ListRegistries(control_pb2.ListRegistriesRequest(), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.quiet:
        print("".join(f"{registry.meta.name}\n" for registry in reply.registries), end="")
    elif options.output == "json":
        output.print_items(reply.registries)
    else:
        rows = [
            (
                registry.meta.name,
                "HTTP" if registry.insecure else "HTTPS",
                "own" if registry.ca_pem else "-",
                registry.user or "-",
                ", ".join(registry.mirrors) or "-",
            )
            for registry in reply.registries
        ]
        output.print_table(("REGISTRY", "BY", "CA", "USER", "MIRRORS"), rows)
    return EXIT_OK


def remove(options: argparse.Namespace) -> int:
    request = control_pb2.RemoveRegistryRequest(registry=options.registry)
    reply = connect(options).call(
        f"forget registry {options.registry}",
        lambda control: control.RemoveRegistry(request, timeout=CALL_SECONDS_MAX),
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        print(f"Forgot registry {options.registry}")
    return EXIT_OK
