"""`external: true` and `name` of an app's networks and volumes: whose they are, and who may call them so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from daemon.errors import Kind, Refused
from daemon.orchestration.external_parts import Part, called, external_ids
from daemon.orchestration.kinds import has_own_volumes
from daemon.orchestration.quantities import names_text
from daemon.orchestration.task_states import named_volumes
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store

NAMES_SHOWN_MAX = 10
_SHARED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
AnyPart = TypeVar("AnyPart", objects.Network, objects.Volume)


def says_external(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know it would start tasks without these networks and volumes."""
    return bool(spec.external_networks or spec.external_volumes)


def names_external(app: control.AppSpec) -> bool:
    return any(network.external for network in app.networks.values()) or any(
        volume.external for volume in app.volumes.values()
    )


def shared_name_problems(app: control.AppSpec) -> Iterator[str]:
    """What names for other apps cannot be."""
    for what, names in (
        ("network", [network.shared_name for network in app.networks.values()]),
        ("volume", [volume.shared_name for volume in app.volumes.values()]),
    ):
        own = [name for name in names if name]
        for name in own:
            if _SHARED_NAME.fullmatch(name) is None:
                yield f"{name!r} cannot be the name of a {what}: use letters, digits, '.', '_' and '-'"


def settle_external(store: Store, tenant: str, app: control.AppSpec) -> None:
    """Notes in the services' specs, in place, which networks and volumes of other apps are meant.

    Raises Refused: NOT_FOUND where no app has one of that name, CONFLICT where two have, NOT_POSSIBLE while a volume is
    being removed, INVALID for what cannot be shared."""
    services = app.services.values()
    networks, volumes = store.table(objects.Network), store.table(objects.Volume)
    found = {
        name: _found(networks, tenant, "network", name, app.networks[name].shared_name or name)
        for name in sorted({name for spec in services for name in spec.networks})
        if name in app.networks and app.networks[name].external
    }
    held = {
        name: _found(volumes, tenant, "volume", name, app.volumes[name].shared_name or name)
        for name in sorted({name for spec in services for name in named_volumes(spec)})
        if name in app.volumes and app.volumes[name].external
    }
    for name, volume in held.items():
        if volume.removing:
            why = f"volume {called(volume)} ({name} in the file) is being removed with app {volume.app}"
            raise Refused(f"{why}; deploy again when another is there", Kind.NOT_POSSIBLE)
    for service in sorted(app.services):
        _settle_service(service, app.services[service], found, held)


def _settle_service(
    name: str, spec: objects.ServiceSpec, networks: dict[str, objects.Network], volumes: dict[str, objects.Volume]
) -> None:
    for network in spec.networks:
        if network in networks:
            spec.external_networks[network] = networks[network].meta.id
    for volume in named_volumes(spec):
        if volume not in volumes:
            continue
        if has_own_volumes(spec):
            raise Refused(
                f"service {name} has volumes of its own for each task, and {volume} is a volume of another app: "
                "leave external out"
            )
        spec.external_volumes[volume] = volumes[volume].meta.id


def _found(parts: Iterable[AnyPart], tenant: str, what: str, name: str, wanted: str) -> AnyPart:
    present = [part for part in parts if part.meta.tenant == tenant]
    meant = [part for part in present if called(part) == wanted]
    if len(meant) == 1:
        return meant[0]
    if meant:
        owners = names_text(sorted(part.app for part in meant), "apps")
        raise Refused(
            f"{what}s.{name}: {owners} have a {what} {wanted!r} each; give one of them a `name` of its own",
            Kind.CONFLICT,
        )
    known = sorted(called(part) for part in present)
    more = f" and {len(known) - NAMES_SHOWN_MAX} more" if len(known) > NAMES_SHOWN_MAX else ""
    there = f"there are {', '.join(known[:NAMES_SHOWN_MAX])}{more}" if known else f"there is no {what} yet"
    raise Refused(
        f"{what}s.{name} is external, and no app has a {what} {wanted!r} ({there}): deploy the app that defines it "
        f"first, and say its name, which is APP_{what.upper()} where that app's file says no other",
        Kind.NOT_FOUND,
    )


def check_shared_name(parts: Iterable[Part], tenant: str, app: str, name: str, wanted: str) -> None:
    """Two parts of one kind cannot be called the same. Raises Refused (CONFLICT)."""
    if not wanted:
        return
    for part in parts:
        if part.meta.tenant == tenant and called(part) == wanted and (part.app, part.meta.name) != (app, name):
            raise Refused(
                f"{name} cannot be named {wanted!r}: that is {part.meta.name} of app {part.app}; to use that one, say "
                "`external: true`",
                Kind.CONFLICT,
            )


def check_removable(store: Store, app: objects.App, parts: Iterable[Part]) -> None:
    """What other apps use stays, and so does its app. Raises Refused (NOT_POSSIBLE)."""
    users: dict[str, str] | None = None
    for part in parts:
        if users is None:
            users = external_ids(store)
        user = users.get(part.meta.id, "")
        if user and not user.startswith(f"{app.meta.name}/"):
            what = "network" if isinstance(part, objects.Network) else "volume"
            raise Refused(
                f"app {app.meta.name} cannot be removed: service {user} uses its {what} {called(part)}; remove that "
                "app or service first, or take the external network or volume out of its file",
                Kind.NOT_POSSIBLE,
            )
