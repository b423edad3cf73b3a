"""Operators' settings of registries, and whom they make a pull ask. Pure: passwords come here sealed already."""

from __future__ import annotations

from collections.abc import Callable

from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder
from runtime.errors import InvalidRequest
from runtime.registry.address import Endpoint, ImageName, Source, parse_mirror, registry_name

REGISTRIES_MAX = 200
MIRRORS_MAX = 8
CA_CHARACTERS_MAX = 256 << 10
USER_CHARACTERS_MAX = 256
PASSWORD_BYTES_MAX = 16 << 10

OpenPassword = Callable[[objects.Registry], str]


def checked_name(text: str) -> str:
    """host[:port]; raises Refused."""
    try:
        return registry_name(text)
    except InvalidRequest as error:
        raise Refused(str(error)) from error


def find_registry(store: Store, name: str) -> objects.Registry | None:
    return store.table(objects.Registry).unique("name", name)


def updated(known: objects.Registry | None, request: control.UpdateRegistryRequest, sealed: bytes) -> objects.Registry:
    """The registry as it is after the request; `sealed` is the password of its login. Raises Refused."""
    after = objects.Registry()
    if known is not None:
        after.CopyFrom(known)
    after.meta.name, after.meta.format = checked_name(request.registry), 1
    if request.HasField("insecure"):
        after.insecure = request.insecure
    if request.HasField("ca_pem"):
        if len(request.ca_pem) > CA_CHARACTERS_MAX or (request.ca_pem and "BEGIN CERTIFICATE" not in request.ca_pem):
            raise Refused(f"the CA for registry {after.meta.name} is not a PEM certificate")
        after.ca_pem = request.ca_pem
    if request.HasField("mirrors"):
        after.mirrors[:] = [_checked_mirror(mirror) for mirror in request.mirrors.mirrors]
        if len(after.mirrors) > MIRRORS_MAX:
            raise Refused(f"registry {after.meta.name}: at most {MIRRORS_MAX} mirrors are possible")
    if request.logout:
        if not after.user:
            raise Refused(f"nobody is logged in to registry {after.meta.name}", Kind.NOT_POSSIBLE)
        after.user, after.sealed_password = "", b""
    if request.HasField("login"):
        _check_login(request.login)
        after.user, after.sealed_password = request.login.user, sealed
    return after


def plan_update(
    store: Store, request: control.UpdateRegistryRequest, sealed: bytes, new_id: Callable[[], str]
) -> tuple[TransactionBuilder, objects.Registry]:
    """Raises Refused. One that says nothing any more is forgotten."""
    known = find_registry(store, checked_name(request.registry))
    after = updated(known, request, sealed)
    builder = TransactionBuilder()
    says_nothing = not (after.insecure or after.ca_pem or after.mirrors or after.user)
    if known is None and says_nothing:
        return builder, after
    if known is None:
        if len(store.table(objects.Registry)) >= REGISTRIES_MAX:
            raise Refused(f"there are {REGISTRIES_MAX} registries already", Kind.EXHAUSTED)
        after.meta.id = new_id()
        builder.create(after)
    elif says_nothing:
        builder.delete(known)
    elif after != known:
        builder.update(after)
    return builder, hidden(after)


def plan_removal(store: Store, text: str) -> tuple[TransactionBuilder, None]:
    """Raises Refused."""
    known = find_registry(store, checked_name(text))
    if known is None:
        raise Refused(f"nothing is set for registry {text}; `fairway registry ls` lists them", Kind.NOT_FOUND)
    return TransactionBuilder().delete(known), None


def hidden(registry: objects.Registry) -> objects.Registry:
    """As operators see it."""
    shown = objects.Registry()
    shown.CopyFrom(registry)
    shown.ClearField("sealed_password")
    return shown


def endpoint(name: str, registry: objects.Registry | None, open_password: OpenPassword) -> Endpoint:
    """How to speak with a registry. Raises Refused where its password cannot be opened."""
    if registry is None:
        return Endpoint(name)
    password = open_password(registry) if registry.user else ""
    return Endpoint(name, registry.insecure, registry.ca_pem, registry.user, password)


def sources(store: Store, image: ImageName, open_password: OpenPassword) -> list[Source]:
    """Whom to ask for an image: the mirrors of its registry, then that itself. Raises Refused."""
    own = find_registry(store, image.registry)
    found = []
    for mirror in own.mirrors if own is not None else ():
        host, path = parse_mirror(mirror)
        repository = f"{path}/{image.repository}" if path else image.repository
        found.append(Source(endpoint(host, find_registry(store, host), open_password), repository))
    found.append(Source(endpoint(image.registry, own, open_password), image.repository))
    return found


def _checked_mirror(text: str) -> str:
    try:
        host, path = parse_mirror(text)
    except InvalidRequest as error:
        raise Refused(str(error)) from error
    return f"{host}/{path}" if path else host


def _check_login(login: control.Login) -> None:
    if not login.user or ":" in login.user or len(login.user) > USER_CHARACTERS_MAX or not login.user.isprintable():
        raise Refused("a user's name is needed, without ':' (RFC 7617)")
    if not login.password or len(login.password) > PASSWORD_BYTES_MAX:
        raise Refused(f"a password is needed, of at most {PASSWORD_BYTES_MAX} bytes")
