"""`profiles`: services that are there only when one of theirs is asked for.

https://github.com/compose-spec/compose-spec/blob/main/15-profiles.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cli.compose.reader import Reader
from cli.compose.service import ServiceRead

_VARIABLE = "COMPOSE_PROFILES"
ALL = "*"


def wanted(given: Sequence[str], environment: Mapping[str, str]) -> frozenset[str]:
    """The profiles that are asked for, on the command line and by COMPOSE_PROFILES=a,b."""
    named = {each.strip() for each in environment.get(_VARIABLE, "").split(",")}
    return frozenset({*given, *named} - {""})


def active(reader: Reader, services: Mapping[str, ServiceRead], asked: frozenset[str]) -> dict[str, ServiceRead]:
    """The services without a profile, and those with one that is asked for. A dependency on another is refused, or
    left out where it is not required."""
    found = {
        name: each for name, each in services.items() if not each.profiles or each.profiles & asked or ALL in asked
    }
    if services and not found:
        names = ", ".join(sorted(set().union(*(each.profiles for each in services.values()))))
        field = next(iter(services.values())).field
        reader.refuse(field, f"has profiles, and so has every other service; name one with --profile: {names}")
    for profile in sorted(asked - {ALL}):
        if not any(profile in each.profiles for each in services.values()):
            reader.problems.warn(0, "", f"no service has the profile {profile}")
    for service in found.values():
        _check_dependencies(reader, service, services, found)
    return found


def _check_dependencies(
    reader: Reader, service: ServiceRead, services: Mapping[str, ServiceRead], found: Mapping[str, ServiceRead]
) -> None:
    kept = []
    for dependency in service.spec.depends_on:
        name = dependency.service
        if name in found or (name not in services and name not in service.optional):
            kept.append(dependency)  # one that is nowhere is refused with the other references
        elif name not in service.optional:
            profiles = ", ".join(sorted(services[name].profiles))
            message = f"names the service {name!r}, which is there with --profile {profiles} only"
            reader.refuse(service.dependency_fields[name], message)
    del service.spec.depends_on[:]
    service.spec.depends_on.extend(kept)
