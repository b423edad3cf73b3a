"""`extends`: a service that begins with what another says, of the same file or of another one.

https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cli.compose.document import Item, Scalar
from cli.compose.merge import merged, settled
from cli.compose.problems import Problems

DEPTH_MAX = 20
# The tree of the file that is named there; None where it cannot be read (then a problem says why).
ReadFile = Callable[[Item], Item | None]


def extended(root: Item, problems: Problems, read_file: ReadFile) -> Item:
    """The file's tree in which no service extends another any more."""
    services = root.value.get("services") if isinstance(root.value, dict) else None
    if services is None or not isinstance(services.value, dict):
        return root
    resolver = _Resolver(problems, read_file)
    found = {name: resolver.service(root, name, each, ()) for name, each in services.value.items()}
    assert isinstance(root.value, dict)
    return dataclasses.replace(root, value=root.value | {"services": dataclasses.replace(services, value=found)})


class _Resolver:
    def __init__(self, problems: Problems, read_file: ReadFile) -> None:
        self._problems = problems
        self._read_file = read_file
        self._known: dict[tuple[str, str], Item] = {}  # by file and name

    def service(self, root: Item, name: str, item: Item, trail: tuple[tuple[str, str], ...]) -> Item:
        """`item`, the service `name` of the file `root`, with all that it extends below it. `trail`: the services
        that led here."""
        here = (root.source.file, name)
        if here in self._known:
            return self._known[here]
        found = item
        if isinstance(item.value, dict) and "extends" in item.value:
            own = {key: each for key, each in item.value.items() if key != "extends"}
            found = dataclasses.replace(item, value=own)
            base = self._base(root, name, item.value["extends"], (*trail, here))
            if base is not None:
                found = merged(settled(base), found, ("services", name), self._problems)
        self._known[here] = found
        return found

    def _base(self, root: Item, name: str, extends: Item, trail: tuple[tuple[str, str], ...]) -> Item | None:
        wanted, file = self._named(name, extends)
        if wanted is None:
            return None
        other = root if file is None else self._read_file(file)
        if other is None:
            return None
        services = other.value.get("services") if isinstance(other.value, dict) else None
        if services is None or not isinstance(services.value, dict) or wanted not in services.value:
            where = other.source.file or self._problems.file
            self._refuse(extends, name, f"names the service {wanted!r}, which {where} does not define")
            return None
        there = (other.source.file, wanted)
        if there in trail:
            loop = " -> ".join(each for _, each in (*trail[trail.index(there) :], there))
            self._refuse(extends, name, f"leads back to itself: {loop}")
            return None
        if len(trail) > DEPTH_MAX:
            self._refuse(extends, name, f"goes over more than {DEPTH_MAX} services")
            return None
        return self.service(other, wanted, services.value[wanted], trail)

    def _named(self, name: str, extends: Item) -> tuple[str | None, Item | None]:
        """The service that is named, and where its file is."""
        if isinstance(extends.value, Scalar) and extends.value.text:
            return extends.value.text, None
        parts = extends.value if isinstance(extends.value, dict) else {}
        for key, each in parts.items():
            if key not in ("service", "file") and not key.startswith("x-"):
                self._refuse(each, f"{name}.extends.{key}", "is not supported by Fairway", below=False)
        wanted = parts.get("service")
        if wanted is None or not isinstance(wanted.value, Scalar) or not wanted.value.text:
            self._refuse(extends, name, "must name a service: extends: NAME, or service: and file:")
            return None, None
        file = parts.get("file")
        return wanted.value.text, None if file is None or file.is_null else file

    def _refuse(self, item: Item, name: str, message: str, *, below: bool = True) -> None:
        path = f"services.{name}" + (".extends" if below else "")
        self._problems.add(item.line, path, message, item.source.file)
