"""Somebody who holds FIFOs open while there is no daemon: what is in one is gone with its last descriptor."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class FifoKeeper(Protocol):
    """Names are unique on the host: "TASK.out"."""

    def keep(self, name: str, file: int) -> None:
        """From now on, until it is dropped. What is kept already stays as it is."""

    def drop(self, name: str) -> None:
        """Harmless where it is not kept."""

    def kept(self) -> Collection[str]: ...


class NoKeeper:
    """What is in the FIFO of a task that ends while there is no daemon is lost."""

    def keep(self, name: str, file: int) -> None: ...
    def drop(self, name: str) -> None: ...
    def kept(self) -> Collection[str]:
        return ()
