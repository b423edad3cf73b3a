"""Users and groups as images name them; an image's files are read once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import trio

from runtime import image_files, users
from runtime.images import ImageStore
from runtime.users import ProcessUser

IMAGES_MAX = 256


class Accounts:
    def __init__(self, images: ImageStore) -> None:
        self._images = images
        # Manifest digest -> the image's /etc/passwd and /etc/group.
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._reading = trio.Lock()

    async def resolve(self, image_digest: str, text: str, groups: Sequence[str] = ()) -> ProcessUser:
        """`text` and `groups` as in ContainerSpec; raises InvalidRequest where the image has no such user or group."""
        async with self._reading:  # tasks of one image often come together
            accounts = self._known.get(image_digest)
            if accounts is None:
                accounts = await self._images.with_files(image_digest, _read)
                self._known[image_digest] = accounts
                if len(self._known) > IMAGES_MAX:
                    self._known.popitem(last=False)
        return users.with_groups(users.resolve(text, *accounts), groups, accounts[1])


def _read(root: Path) -> tuple[str, str]:
    return (
        image_files.read_text_in_root(root, "/etc/passwd"),
        image_files.read_text_in_root(root, "/etc/group"),
    )
