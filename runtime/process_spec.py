"""The OCI specification of a further process in a container, from the one of its first. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from runtime import oci_spec
from runtime.errors import InvalidRequest
from runtime.users import ProcessUser


def for_exec(
    first: Mapping[str, Any],
    command: Sequence[str],
    environment: Mapping[str, str],
    user: ProcessUser | None,
    working_dir: str,
    tty: bool,
) -> dict[str, Any]:
    """Same capabilities, environment, user and folder as the container's, less what is given."""
    if not command:
        raise InvalidRequest("no command was given")
    process: dict[str, Any] = copy.deepcopy(dict(first))
    process["args"] = list(command)
    process["terminal"] = tty
    process.pop("consoleSize", None)
    merged = dict(line.split("=", 1) for line in process.get("env", []))
    if tty:
        merged.setdefault("TERM", "xterm")
    if user is not None:
        process["user"] = oci_spec.user_entry(user)
        process["capabilities"] = oci_spec.capability_sets(process["capabilities"]["bounding"], user.uid)
        merged["HOME"] = user.home
    merged |= environment
    if any(not name or "=" in name or "\0" in name + value for name, value in merged.items()):
        raise InvalidRequest("environment: a variable's name is not empty and has no = or NUL")
    process["env"] = [f"{name}={value}" for name, value in merged.items()]
    if working_dir:
        process["cwd"] = oci_spec.working_dir(working_dir)
    return process
